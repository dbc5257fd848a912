#include "core/digest.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct pm_digest {
    EVP_MD_CTX *context;
};

pm_status pm_digest_create(pm_digest **digest)
{
    pm_digest *d = calloc(1, sizeof *d);
    if (d)
        d->context = EVP_MD_CTX_new();
    if (!d || !d->context || EVP_DigestInit_ex(d->context, EVP_sha256(), NULL) != 1) {
        pm_digest_destroy(&d);
        return pm_fail(PM_NO_MEMORY, "a SHA-256 context");
    }
    *digest = d;
    return pm_ok();
}

void pm_digest_update(pm_digest *digest, const void *bytes, size_t size)
{
    EVP_DigestUpdate(digest->context, bytes, size);
}

void pm_digest_finish(pm_digest *digest, char hex[PM_DIGEST_HEX])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(digest->context, raw, &size);
    for (unsigned i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
}

void pm_digest_destroy(pm_digest **digest)
{
    if (!digest || !*digest)
        return;
    EVP_MD_CTX_free((*digest)->context);
    free(*digest);
    *digest = NULL;
}

pm_status pm_digest_bytes(const void *bytes, size_t size, char hex[PM_DIGEST_HEX])
{
    pm_digest *digest;
    pm_status status = pm_digest_create(&digest);
    if (status.code != PM_OK)
        return status;
    pm_digest_update(digest, bytes, size);
    pm_digest_finish(digest, hex);
    pm_digest_destroy(&digest);
    return pm_ok();
}

static pm_status digest_fd(pm_digest *digest, int fd, const char *path, size_t *size)
{
    char piece[1 << 16];
    for (;;) {
        ssize_t got = read(fd, piece, sizeof piece);
        if (got < 0)
            return pm_fail_errno("%s", path);
        if (got == 0)
            return pm_ok();
        pm_digest_update(digest, piece, (size_t)got);
        *size += (size_t)got;
    }
}

pm_status pm_digest_file(const char *path, char hex[PM_DIGEST_HEX], size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno("%s", path);
    pm_digest *digest = NULL;
    size_t total = 0;
    pm_status status = pm_digest_create(&digest);
    if (status.code == PM_OK)
        status = digest_fd(digest, fd, path, &total);
    if (status.code == PM_OK)
        pm_digest_finish(digest, hex);
    if (size)
        *size = total;
    pm_digest_destroy(&digest);
    close(fd);
    return status;
}
