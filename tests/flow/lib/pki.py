"""Certificates for tests, made with the openssl command: authorities, intermediates, servers, clients, good ones and bad ones.

    pki = Pki(folder)
    root = pki.root("Test Root")
    leaf = root.issue("registry.test", names=["registry.test", "*.cdn.test"], ips=["127.0.0.1"])
    leaf.chain_file, leaf.key_file        # what a server is given
    root.file                             # what larder is given as `ca`

Elliptic curves (P-256), because RSA keys take long to make. Dates are days from now."""

import base64
import datetime
import os
import subprocess


def _openssl(*arguments, text=None):
    done = subprocess.run(["openssl", *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0, "openssl %s:\n%s" % (" ".join(arguments), done.stderr)
    return done.stdout


def _date(days):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


def _head(der):
    """How long the tag and the length of a DER element are."""
    return 2 + (der[1] & 0x7f if der[1] & 0x80 else 0)


def _first(der):
    """The first element, and what is behind it."""
    head = _head(der)
    n = head + (int.from_bytes(der[2:head], "big") if head > 2 else der[1])
    return der[:n], der[n:]


def _element(tag, inside):
    n = len(inside)
    length = bytes([n]) if n < 0x80 else bytes([0x82]) + n.to_bytes(2, "big") if n > 0xff else bytes([0x81, n])
    return bytes([tag]) + length + inside


class Cert:
    """A certificate with its key. `chain`: itself and what leads to the root, without the root."""

    def __init__(self, pki, folder, subject, issuer, authority):
        self.pki, self.folder, self.subject, self.issuer, self.authority = pki, folder, subject, issuer, authority
        self.key_file = os.path.join(folder, "key.pem")
        self.file = os.path.join(folder, "cert.pem")
        self.chain_file = os.path.join(folder, "chain.pem")

    @property
    def pem(self):
        with open(self.file) as file:
            return file.read()

    @property
    def key(self):
        with open(self.key_file) as file:
            return file.read()

    @property
    def chain(self):
        if self.issuer is None:
            return [self.pem]
        return [self.pem] + ([] if self.issuer.issuer is None else self.issuer.chain)

    def issue(self, subject, **how):
        """A certificate signed by this one: see Pki._make."""
        return self.pki._make(subject, self, **how)

    def cross_sign(self, other, **how):
        """This name and key, signed by another authority."""
        return self.pki._make(self.subject, other, authority=self.authority, key_of=self, **how)

    def with_bytes(self, old, new):
        """This certificate with other bytes in the place of some, as many, signed again: for what the openssl command does not make."""
        der = base64.b64decode("".join(self.pem.splitlines()[1:-1]))
        signed, rest = _first(_first(der)[0][_head(der):])
        algorithm, _ = _first(rest)
        assert signed.count(old) == 1 and len(old) == len(new)
        signed = signed.replace(old, new)
        body = os.path.join(self.pki.new_folder(), "signed.der")
        with open(body, "wb") as out:
            out.write(signed)
        _openssl("dgst", "-sha256", "-sign", (self.issuer or self).key_file, "-out", body + ".signature", body)
        with open(body + ".signature", "rb") as file:
            signature = b"\0" + file.read()
        der = _element(0x30, signed + algorithm + _element(0x03, signature))
        with open(self.file, "w") as out:
            out.write("-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % base64.encodebytes(der).decode())
        with open(self.chain_file, "w") as out:
            out.write("".join(self.chain))
        return self

    def with_chain(self, *certificates):
        """The same key and certificate, with these in the chain file instead of those that belong there."""
        twin = Cert(self.pki, self.folder, self.subject, self.issuer, self.authority)
        twin.chain_file = os.path.join(self.pki.new_folder(), "chain.pem")
        with open(twin.chain_file, "w") as out:
            out.write("".join(c.pem for c in certificates))
        return twin


class Pki:
    def __init__(self, folder):
        self.folder = str(folder)
        self._made = 0

    def new_folder(self):
        self._made += 1
        folder = os.path.join(self.folder, "%d" % self._made)
        os.makedirs(folder)
        return folder

    def root(self, subject, **how):
        return self._make(subject, None, authority=True, **how)

    def bundle(self, *certificates, name="bundle.pem"):
        """One file with several certificates."""
        path = os.path.join(self.new_folder(), name)
        with open(path, "w") as out:
            out.write("".join(c.pem for c in certificates))
        return path

    def _make(self, subject, issuer, authority=False, names=(), ips=(), start=-1, end=30, key="P-256", key_of=None, md="sha256",
              extra=()):
        """`key`: a curve, "rsa:BITS" or "ed25519"; `md`: what is signed with; `extra`: further lines of extensions."""
        folder = self.new_folder()
        cert = Cert(self, folder, subject, issuer, authority)
        if key_of is not None:
            with open(cert.key_file, "w") as out:
                out.write(key_of.key)
        elif key.startswith("rsa:"):
            _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:" + key[4:], "-out", cert.key_file)
        elif key == "ed25519":
            _openssl("genpkey", "-algorithm", "ED25519", "-out", cert.key_file)
        else:
            _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + key, "-out", cert.key_file)
        config = self._write_config(folder, authority, names, ips, extra)
        request = os.path.join(folder, "request.pem")
        _openssl("req", "-new", "-config", config, "-key", cert.key_file, "-subj", "/CN=" + subject, "-out", request)
        signer = ["-selfsign", "-keyfile", cert.key_file] if issuer is None else ["-cert", issuer.file, "-keyfile", issuer.key_file]
        _openssl("ca", "-batch", "-notext", "-config", config, "-md", md, "-in", request, "-out", cert.file, "-startdate", _date(start),
                 "-enddate", _date(end), *signer)
        with open(cert.chain_file, "w") as out:
            out.write("".join(cert.chain))
        return cert

    @staticmethod
    def _write_config(folder, authority, names, ips, extra):
        others = ["DNS:" + n for n in names] + ["IP:" + i for i in ips]
        lines = ["basicConstraints = critical,CA:" + ("TRUE" if authority else "FALSE"),
                 "keyUsage = critical," + ("keyCertSign,cRLSign" if authority else "digitalSignature,keyEncipherment")]
        if others:
            lines.append("subjectAltName = " + ",".join(others))
        with open(os.path.join(folder, "index.txt"), "w"):
            pass
        config = os.path.join(folder, "openssl.cnf")
        with open(config, "w") as out:
            out.write("[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = unused\n"
                      "[ca]\ndefault_ca = one\n[one]\ndatabase = %s/index.txt\nnew_certs_dir = %s\nrand_serial = yes\n"
                      "default_md = sha256\npolicy = any\nunique_subject = no\nx509_extensions = extensions\n"
                      "[any]\ncommonName = supplied\n[extensions]\n%s\n" % (folder, folder, "\n".join(lines + list(extra))))
        return config
