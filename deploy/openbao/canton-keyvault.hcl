# What a vault may do with its wrapper key, canton, on the transit mount. See README.md, which says what each path is for.

path "transit/encrypt/canton" {
  capabilities = ["update"]
}

path "transit/decrypt/canton" {
  capabilities = ["update"]
}

path "transit/keys/canton" {
  capabilities = ["read"]
}
