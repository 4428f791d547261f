"""LoRA fine-tuning of open vision-language models into robot policies, and their evaluation."""
