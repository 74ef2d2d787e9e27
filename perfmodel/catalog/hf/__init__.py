"""What a Hugging Face ``config.json`` says: its decoder (`config`), and how that is stored (`quantisation`)."""
