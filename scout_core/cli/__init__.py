"""The ``scout`` command: thin modules, one a command; the work is in the other rooms."""
