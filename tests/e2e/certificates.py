"""Certificates for the tests, made by openssl's command line: an authority, and what it signs."""

import pathlib
import ssl
import subprocess

from bantam import Tls

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*arguments, text=None):
    subprocess.run(["openssl", *map(str, arguments)], input=text, text=True, check=True, capture_output=True)


class Authority:
    """A folder with ca.pem, and NAME.pem and NAME.key for each name that was made."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        openssl("req", "-x509", *CURVE, "-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-days", 2, "-subj",
                f"/CN={folder.name}")

    def path(self, name: str) -> pathlib.Path:
        return self.folder / name

    def make(self, name: str, alternatives: str | None = None, days: int = 2) -> None:
        """Negative days: it has expired."""
        key, request, cert, extensions = (self.path(f"{name}.{end}") for end in ("key.new", "csr", "pem.new", "ext"))
        openssl("req", *CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions.write_text(f"subjectAltName={alternatives}\n" if alternatives else "\n")
        openssl("x509", "-req", "-in", request, "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"), "-CAcreateserial",
                "-days", days, "-out", cert, "-extfile", extensions)
        key.rename(self.path(f"{name}.key"))
        cert.rename(self.path(f"{name}.pem"))

    def server_flags(self, name: str = "server") -> list[str]:
        return ["--ssl-certfile", str(self.path(f"{name}.pem")), "--ssl-keyfile", str(self.path(f"{name}.key"))]

    def context(self, name: str | None = None) -> ssl.SSLContext:
        """For HTTPS: trusts this authority, and shows the certificate of that name."""
        context = ssl.create_default_context(cafile=str(self.path("ca.pem")))
        if name:
            context.load_cert_chain(self.path(f"{name}.pem"), self.path(f"{name}.key"))
        return context

    def tls(self, name: str | None = None) -> Tls:
        """The same for gRPC."""
        certificate, key = (self.path(f"{name}.{end}") if name else None for end in ("pem", "key"))
        return Tls(ca=self.path("ca.pem"), certificate=certificate, key=key)
