"""A fine-tuning recipe for semantic segmentation; start reading at scripts/finetune.py."""
