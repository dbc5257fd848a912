#pragma once
// The checkpoint service's disk thread: everything that reads or writes the store while the job runs, so that
// a slow disk holds up no line. Spoken to through the actor's pipe, one order after the other:
//
//   save     Published with one frame: the address of a pm_cut, which the disk takes over  -> Heartbeat
//   (version, step) load     Heartbeat whose version is to be read      -> Published with one frame: the
//   address of a pm_cut,
//                                                          header.request the version; the receiver takes it
//                                                          over
//   a snapshot request, last frame: the asker's pm_peer -> the answer, same last frame
//   Goodbye  ends the thread
// What fails in save or load comes back as an Error without frames.
#include "net/actor.h"
#include "ps/archive.h"

typedef struct pm_disk {
    pm_store *store; // only the disk's, while it runs
    pm_archive_source source;
    pm_log log;
    pm_metric *save_seconds;
} pm_disk;

// For pm_actor_start; argument: a pm_disk that outlives the actor.
pm_status pm_disk_main(void *argument, pm_socket *pipe) PM_CHECKED;

// Orders, from the owner of the near end. pm_disk_save takes the cut over in any case.
pm_status pm_disk_save(pm_socket *pipe, pm_cut **cut) PM_CHECKED;
pm_status pm_disk_load(pm_socket *pipe, uint64_t version) PM_CHECKED;
pm_status pm_disk_ask(pm_socket *pipe, const pm_peer *from, pm_message *request) PM_CHECKED;

// Takes the cut out of a message, or the asker; NULL or false when there is none.
pm_cut *pm_disk_cut(pm_message *message);
bool pm_disk_asker(pm_message *message, pm_peer *peer);
