#include "infer/mailbox.h"

#include <stdlib.h>

static pm_letter *next_letter(pm_mailbox *mailbox)
{
    if (mailbox->count == mailbox->capacity) {
        size_t capacity = mailbox->capacity ? mailbox->capacity * 2 : 64;
        pm_letter *letters = realloc(mailbox->letters, capacity * sizeof *letters);
        if (!letters)
            return NULL;
        mailbox->letters = letters;
        mailbox->capacity = capacity;
    }
    return &mailbox->letters[mailbox->count];
}

void pm_mailbox_post(pm_mailbox *mailbox, uint32_t line, const pm_peer *to, Paramill__Header *header,
                     pm_buffer *frame)
{
    pm_letter *letter = header ? next_letter(mailbox) : NULL;
    if (!letter) {
        pm_message lost = {.header = header};
        pm_message_clear(&lost);
        pm_buffer_unref(&frame);
        return;
    }
    letter->line = line;
    letter->to = *to;
    letter->message.header = header;
    letter->message.frame_count = frame ? 1 : 0;
    letter->message.frames[0] = frame;
    mailbox->count++;
}

void pm_mailbox_clear(pm_mailbox *mailbox)
{
    for (size_t i = 0; i < mailbox->count; i++)
        pm_message_clear(&mailbox->letters[i].message);
    mailbox->count = 0;
}

void pm_mailbox_free(pm_mailbox *mailbox)
{
    pm_mailbox_clear(mailbox);
    free(mailbox->letters);
    *mailbox = (pm_mailbox){0};
}
