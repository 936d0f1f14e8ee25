"""Layers and what they are called with live on the device that tests run on."""

import tripy as tp
from tests.helpers import where

tp.config.default_device = where()
