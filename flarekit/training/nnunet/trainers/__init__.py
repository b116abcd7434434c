"""The folder that `nnUNet_extTrainer` names: nnU-Net imports its files by their own names."""
