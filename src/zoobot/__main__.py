"""``python -m zoobot`` is the same as ``zoobot``."""

from zoobot.cli.main import main

if __name__ == "__main__":
    main()
