"""The control plane: where and when stages run. Each task runs `dvc repro --single-item STAGE@KEY`."""
