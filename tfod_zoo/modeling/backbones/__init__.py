"""Backbones: the networks that turn pixels into feature maps, from tf_keras.applications."""
