"""Group codecs on a GPU; see README.md. Importing the package needs no GPU and no Triton."""
