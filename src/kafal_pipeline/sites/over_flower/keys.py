"""Makes the keys and certificates of a federation: one authority, the server's certificate, a key for each site."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import replacing

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "server.pem", "server.key"
DAYS = 825  # the longest that common clients accept


def make_certificates(folder: Path, hosts: Sequence[str], days: int = DAYS) -> None:
    """Make an authority and, signed by it, the server's certificate for host names and addresses.

    The authority's own key is forgotten: nobody can sign another certificate with it. ``ca.pem`` goes to the sites, the
    rest stays at the server.

    Raises
    ------
    UserError
        If one of the files is there.
    """
    for name in (AUTHORITY, CERTIFICATE, KEY):
        _check_absent(folder / name)
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafal_pipeline federation")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    end = begin + datetime.timedelta(days=days)
    usage = {
        **dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False),
        **dict.fromkeys(("encipher_only", "decipher_only"), False),
    }
    root = (
        _certificate(issuer, issuer, authority.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA384())
    )
    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    own = (
        _certificate(own_name, issuer, server.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), critical=True
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA384())
    )
    _write(folder / AUTHORITY, root.public_bytes(serialization.Encoding.PEM))
    _write(folder / CERTIFICATE, own.public_bytes(serialization.Encoding.PEM))
    _write(folder / KEY, _pem(server, serialization.PrivateFormat.PKCS8), secret=True)


def make_site_key(path: Path) -> None:
    """Make a site's key: `path`, which never leaves the site, and ``<path>.pub``, which the server registers."""
    public = path.with_name(f"{path.name}.pub")
    for name in (path, public):
        _check_absent(name)
    key = ec.generate_private_key(ec.SECP384R1())
    _write(path, _pem(key, serialization.PrivateFormat.OpenSSH), secret=True)
    ssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    _write(public, key.public_key().public_bytes(*ssh) + b"\n")


def _certificate(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    number = x509.random_serial_number()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key).serial_number(number)
    return builder.not_valid_before(begin).not_valid_after(end)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _check_absent(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path}: is there already, and stays. Remove it if it is to be made again.")


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
