#include "snapshot/store_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pm_status write_all(int fd, const void *bytes, size_t size, const char *path)
{
    const char *next = bytes;
    while (size > 0) {
        ssize_t wrote = write(fd, next, size);
        if (wrote < 0)
            return pm_fail_errno("cannot write %s", path);
        next += wrote;
        size -= (size_t)wrote;
    }
    return fsync(fd) ? pm_fail_errno("cannot sync %s", path) : pm_ok();
}

pm_status pm_file_write(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return pm_fail_errno("cannot create %s", path);
    pm_status status = write_all(fd, bytes, size, path);
    close(fd);
    if (status.code != PM_OK)
        unlink(path);
    return status;
}

pm_status pm_folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno("%s", path);
    pm_status status = fsync(fd) ? pm_fail_errno("cannot sync %s", path) : pm_ok();
    close(fd);
    return status;
}

pm_status pm_file_replace(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[PM_PATH_MAX], temporary[PM_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(temporary, sizeof temporary, "%s/.%s-%d", folder, name, (int)getpid());
    unlink(temporary);
    pm_status status = pm_file_write(temporary, bytes, size);
    if (status.code == PM_OK && rename(temporary, path)) {
        status = pm_fail_errno("cannot replace %s", path);
        unlink(temporary);
    }
    return status.code == PM_OK ? pm_folder_sync(folder) : status;
}

pm_status pm_folder_remove(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return errno == ENOENT ? pm_ok() : pm_fail_errno("%s", path);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    return rmdir(path) ? pm_fail_errno("cannot remove %s", path) : pm_ok();
}
