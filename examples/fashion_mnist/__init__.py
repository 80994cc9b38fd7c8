# SPDX-License-Identifier: BSD-3-Clause
"""What `110_distill_fashion_mnist.py` is made of, in the order the data flows.

`data` reads the images, `recipe` holds every number of the run, `clock` fits it into the minutes allowed, `train` is
the loop, `progress` shows it, `checkpoint` saves it, `results` writes the files and measures them, `charts` and
`report_page` draw the page.

`120_quantise_fashion_mnist.py` and `130_quantise_after_training.py` are made of `float_network`, what they start from
and how they train, and `seeds`, numbers over seeds and their files.
"""
