#pragma once
// What the store's files share.
#include "snapshot/store.h"

struct pm_store {
    char folder[512]; // ROOT/MODEL
    char model[72];
    bool write;
};

// Writes path through a temporary neighbour: write, fsync, rename, fsync of the folder.
pm_status pm_file_replace(const char *folder, const char *name, const void *bytes, size_t size) PM_CHECKED;

// Writes and syncs a new file.
pm_status pm_file_write(const char *path, const void *bytes, size_t size) PM_CHECKED;

// fsync of a folder, so that its entries are on the disk.
pm_status pm_folder_sync(const char *path) PM_CHECKED;

// Removes a flat folder and the files in it; nothing there is no failure.
pm_status pm_folder_remove(const char *path) PM_CHECKED;
