#pragma once
// Files and folders as the store leaves them: whole or not there, and on the disk.
#include "core/status.h"

#include <stddef.h>

// Writes and syncs a new file; nothing is left of one that fails.
pm_status pm_file_write(const char *path, const void *bytes, size_t size) PM_CHECKED;

// Writes path through a temporary neighbour: write, fsync, rename, fsync of the folder.
pm_status pm_file_replace(const char *folder, const char *name, const void *bytes, size_t size) PM_CHECKED;

// fsync of a folder, so that its entries are on the disk.
pm_status pm_folder_sync(const char *path) PM_CHECKED;

// Removes a flat folder and the files in it; nothing there is no failure.
pm_status pm_folder_remove(const char *path) PM_CHECKED;
