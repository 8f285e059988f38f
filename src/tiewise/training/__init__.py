"""Fitting of one fold: rows of tokens, optimiser steps, the Trainer, the saved adapter."""
