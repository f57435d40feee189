# A bucket as all of ours are: private, encrypted, with old versions, and deaf to plain text.

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV2_AWS_62:Nobody waits for an object to appear
  #checkov:skip=CKV_AWS_144:Backups are copied to another region (modules/aws/object-store); the rest stays where it is
  #checkov:skip=CKV_AWS_18:Buckets with data are recorded (modules/aws/object-store), states and backups by the account's trail

  bucket        = var.name
  force_destroy = !var.is_protected
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    bucket_key_enabled = var.key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.key_arn != null ? "aws:kms" : "AES256"
      kms_master_key_id = var.key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "undo"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.undo_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }

  dynamic "rule" {
    for_each = var.days == null ? [] : [var.days]

    content {
      id     = "expire"
      status = "Enabled"

      filter {
        prefix = var.days_below
      }

      expiration {
        days = rule.value
      }

      abort_incomplete_multipart_upload {
        days_after_initiation = 3
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "NoPlainText"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }],
      [for writer in var.writers : {
        Sid       = "Service${index(var.writers, writer)}"
        Effect    = "Allow"
        Principal = { Service = writer.service }
        Action    = writer.actions
        Resource  = writer.of_objects ? "${aws_s3_bucket.this.arn}/*" : aws_s3_bucket.this.arn
        Condition = { StringEquals = writer.only_for }
      }],
    )
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}
