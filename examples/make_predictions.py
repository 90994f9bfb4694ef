"""Step 3: predict how volunteers would vote on new images.

python examples/make_predictions.py --checkpoint-dir model --folder images --save-loc predictions.csv
"""

import argparse
from pathlib import Path

from zoobot.data import tables
from zoobot.predictions import predict_on_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--file-format", default="auto")
    parser.add_argument("--save-loc", type=Path, default=Path("predictions.csv"))
    arguments = parser.parse_args()

    done = predict_on_images.predict(
        checkpoint_dir=arguments.checkpoint_dir,
        folder_to_predict=arguments.folder,
        file_format=arguments.file_format,
        save_loc=arguments.save_loc,
        n_samples=5,
    )
    catalogue = tables.read_table(done.save_loc)  # as pandas reads it, but an id_str of 00123 stays text
    print(catalogue.filter(regex="id_str|_fraction$").head().to_string(index=False))


if __name__ == "__main__":
    main()
