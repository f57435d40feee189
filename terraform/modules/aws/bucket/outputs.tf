output "id" {
  description = "Name of the bucket, once it has its versions: what copies it waits for that."
  value       = aws_s3_bucket.this.bucket

  depends_on = [aws_s3_bucket_versioning.this]
}

output "arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.this.arn
}

output "policy" {
  description = "The bucket's policy."
  value       = aws_s3_bucket_policy.this.policy
}
