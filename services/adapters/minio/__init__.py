"""An S3 store behind `isa.objects.v1`.

Owns: nothing; a bucket of an organisation is named after it and tagged with it, and both are checked.
Promises: an object is seen whole or not at all; memory does not grow with its size; a signed URL reaches one bucket,
whatever headers go with it.
"""
