"""The accuracy that the worst of many adaptive attacks leaves."""
