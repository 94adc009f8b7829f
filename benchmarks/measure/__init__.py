"""What is measured again and again: the order of every sampler, its error per evaluation, its cost per step."""
