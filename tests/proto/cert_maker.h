/* Certificates for tests: an authority, and what it signs, as PEM files. */
#pragma once

struct cert_authority;

struct cert_authority *cert_authority_make(void);
void cert_authority_free(struct cert_authority *authority);
void cert_authority_write(const struct cert_authority *authority, const char *cert_path);
/* alternatives: "DNS:localhost,URI:spiffe://x/a", or NULL; valid from an hour ago until `seconds` from now.
 */
void cert_make(const struct cert_authority *authority, const char *alternatives, long seconds,
               const char *cert_path, const char *key_path);
