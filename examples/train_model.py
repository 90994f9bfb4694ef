"""Step 2: train a model on shards.

python examples/train_model.py --shard-dir shards --save-dir model --epochs 50
"""

import argparse
from pathlib import Path

from zoobot.data import shards
from zoobot.data.manifest import Manifest
from zoobot.estimators import define_model
from zoobot.training import losses, training_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard-dir", type=Path, required=True)
    parser.add_argument("--save-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--encoder", default="efficientnet_b0")
    arguments = parser.parse_args()

    manifest = Manifest.load(arguments.shard_dir)
    schema = manifest.schema
    train_dataset, test_dataset = shards.load_datasets(arguments.shard_dir, schema)

    model = define_model.get_model(
        schema=schema,
        input_size=manifest.image_size,
        channels=manifest.channels,
        crop_size=int(0.75 * manifest.image_size),
        encoder=arguments.encoder,
        fit=manifest.settings["fit"],
    )
    # the negative log-likelihood of the votes for each question; any function of votes and concentrations will do
    loss = losses.get_multiquestion_loss(schema.question_index_groups)

    config = training_config.TrainConfig(log_dir=arguments.save_dir, epochs=arguments.epochs, patience=10)
    training_config.train_estimator(model, config, train_dataset, test_dataset, loss=loss)


if __name__ == "__main__":
    main()
