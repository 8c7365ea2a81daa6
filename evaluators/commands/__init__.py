"""The subcommands of `depthlab judge`, one file each; bootstrap.py is what several of them share."""
