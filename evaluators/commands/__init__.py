"""The subcommands of `depthlab judge`, one file each."""
