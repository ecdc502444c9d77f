"""Make the embedded demo zoo (python -m dcmerge.zoo.build): sources, pools, base, experts, adapters, files."""
