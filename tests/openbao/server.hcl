# The OpenBao server of the tests: everything in memory, TLS on loopback (and a plain listener), and a log of every request.
# PORT and PLAIN are put in by the tests.
storage "inmem" {}

listener "tcp" {
  address       = "127.0.0.1:PORT"
  tls_cert_file = "server.pem"
  tls_key_file  = "server.key"
}

listener "tcp" {
  address     = "127.0.0.1:PLAIN"
  tls_disable = true
}

api_addr = "https://127.0.0.1:PORT"

audit "file" "requests" {
  options {
    file_path = "requests.log"
  }
}
