"""The Flax decoder, its sampler, and the way to and from Hugging Face folders."""
