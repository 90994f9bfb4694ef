"""Step 1 of training from scratch: turn a catalog of votes and its images into shards.

python examples/create_shards.py --labelled-catalog catalog.csv --shard-dir shards --schema gz2
"""

import argparse
from pathlib import Path

from zoobot import schemas
from zoobot.data.shard_writing import ShardConfig, create_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled-catalog", type=Path, required=True)
    parser.add_argument("--shard-dir", type=Path, required=True)
    parser.add_argument("--schema", default="gz_decals")
    parser.add_argument("--img-size", type=int, default=300)
    parser.add_argument("--eval-size", type=int)
    arguments = parser.parse_args()

    schema = schemas.load(arguments.schema)
    print(schema.draw())
    config = ShardConfig(img_size=arguments.img_size, eval_size=arguments.eval_size)
    manifest = create_shards(arguments.labelled_catalog, arguments.shard_dir, schema, config)
    print(manifest.counts)


if __name__ == "__main__":  # shards are written by processes, which import this file
    main()
