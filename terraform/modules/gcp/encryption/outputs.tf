output "keys" {
  description = "Key id of each purpose; those that end in -replica only where copies are kept."
  value       = { for purpose, key in google_kms_crypto_key.this : purpose => key.id }
  depends_on  = [google_kms_crypto_key_iam_member.agent]
}
