#pragma once
// SHA-256 by libcrypto, as lower-case hex.
#include "core/status.h"

#include <stddef.h>

enum { PM_DIGEST_HEX = 65 }; // 64 hex digits and the NUL

typedef struct pm_digest pm_digest;

pm_status pm_digest_create(pm_digest **digest) PM_CHECKED;
void pm_digest_update(pm_digest *digest, const void *bytes, size_t size);
void pm_digest_finish(pm_digest *digest, char hex[PM_DIGEST_HEX]); // once
void pm_digest_destroy(pm_digest **digest);

// Digest of bytes in memory.
pm_status pm_digest_bytes(const void *bytes, size_t size, char hex[PM_DIGEST_HEX]) PM_CHECKED;

// Digest of a file's content, read in pieces; *size (may be NULL) gets its length.
pm_status pm_digest_file(const char *path, char hex[PM_DIGEST_HEX], size_t *size) PM_CHECKED;
