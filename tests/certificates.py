"""Self-signed certificates for servers of tests."""

import ssl
import subprocess
from pathlib import Path


def self_signed(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """Create a certificate for names such as `DNS:a.example` or `IP:127.0.0.1`; return its file and a server's context."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    subject = ["-subj", "/CN=test", "-addext", f"subjectAltName={','.join(names)}"]
    subprocess.run([*command, "-keyout", key, "-out", certificate, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
