#pragma once
// Turns what a router sent into a result. The router is trusted no further than its bytes: sizes and shapes
// are checked before use.
#include "paramill/client.h"

#include "proto/message.h"

// An INFER_RESPONSE with its frame, into data, shape, version and digest. PM_PROTOCOL says what does not fit.
pm_status pm_client_read_response(const pm_message *message, pm_client_result *result) PM_CHECKED;

// A METADATA_RESPONSE.
pm_status pm_client_read_metadata(const pm_message *message, pm_client_metadata *metadata) PM_CHECKED;

pm_client_code pm_client_code_of(pm_code code);
