/* Where every field of every public struct is, on 64-bit machines. A change here is a change of the ABI: see docs/ABI.md. */
#include <bruit.h>

#ifdef __cplusplus
#define ASSERT(condition) static_assert(condition, #condition)
#else
#define ASSERT(condition) _Static_assert(condition, #condition)
#endif
#define AT(type, field, offset) ASSERT(sizeof(void *) != 8 || offsetof(type, field) == (offset))
#define SIZE(type, size) ASSERT(sizeof(void *) != 8 || sizeof(type) == (size))

AT(bruit_member, size, 0);
AT(bruit_member, state, 4);
AT(bruit_member, flags, 8);
AT(bruit_member, port, 12);
AT(bruit_member, name, 16);
AT(bruit_member, address, 24);
AT(bruit_member, ip, 32);
AT(bruit_member, epoch, 40);
AT(bruit_member, incarnation, 48);
AT(bruit_member, state_age_ms, 56);
AT(bruit_member, rtt_us, 64);
AT(bruit_member, protocol, 72);
AT(bruit_member, app_version, 76);
AT(bruit_member, data, 80);
SIZE(bruit_member, 88);

AT(bruit_event, size, 0);
AT(bruit_event, kind, 4);
AT(bruit_event, changed, 8);
AT(bruit_event, flags, 12);
AT(bruit_event, view, 16);
AT(bruit_event, member, 24);
AT(bruit_event, before, 32);
AT(bruit_event, id, 40);
AT(bruit_event, count, 48);
AT(bruit_event, status, 56);
AT(bruit_event, text, 64);
SIZE(bruit_event, 72);

AT(bruit_kv, size, 0);
AT(bruit_kv, key, 8);
AT(bruit_kv, value, 16);
AT(bruit_kv, len, 24);
SIZE(bruit_kv, 32);

AT(bruit_err_desc, size, 0);
AT(bruit_err_desc, code, 4);
AT(bruit_err_desc, name, 8);
AT(bruit_err_desc, text, 16);
SIZE(bruit_err_desc, 24);

AT(bruit_option_desc, size, 0);
AT(bruit_option_desc, kind, 4);
AT(bruit_option_desc, flags, 8);
AT(bruit_option_desc, reserved, 12);
AT(bruit_option_desc, key, 16);
AT(bruit_option_desc, unit, 24);
AT(bruit_option_desc, lan, 32);
AT(bruit_option_desc, wan, 40);
AT(bruit_option_desc, local, 48);
AT(bruit_option_desc, bounds, 56);
AT(bruit_option_desc, choices, 64);
AT(bruit_option_desc, source, 72);
AT(bruit_option_desc, doc, 80);
AT(bruit_option_desc, group, 88);
SIZE(bruit_option_desc, 96);

AT(bruit_stat_desc, size, 0);
AT(bruit_stat_desc, reserved, 4);
AT(bruit_stat_desc, name, 8);
AT(bruit_stat_desc, doc, 16);
SIZE(bruit_stat_desc, 24);

/* 64-bit counters in the order that they were added in. */
AT(bruit_stats, size, 0);
AT(bruit_stats, reserved, 4);
AT(bruit_stats, packets_in, 8);
AT(bruit_stats, malformed, 16);
AT(bruit_stats, unexpected, 24);
AT(bruit_stats, unknown_sender, 32);
AT(bruit_stats, acks, 40);
AT(bruit_stats, acks_late, 48);
AT(bruit_stats, acks_by_stream, 56);
AT(bruit_stats, nacks, 64);
AT(bruit_stats, silent, 72);
AT(bruit_stats, suspicions, 80);
AT(bruit_stats, refutations, 88);
AT(bruit_stats, deaths, 96);
AT(bruit_stats, accused_back, 104);
AT(bruit_stats, answers_cut, 112);
AT(bruit_stats, state_refused, 120);
AT(bruit_stats, joins_accepted, 128);
AT(bruit_stats, joins_refused, 136);
AT(bruit_stats, cookies_bad, 144);
AT(bruit_stats, exchanges, 152);
AT(bruit_stats, table_pulls, 160);
AT(bruit_stats, state_pulls, 168);
AT(bruit_stats, rumors_waiting, 176);
AT(bruit_stats, gossip_over_budget, 184);
AT(bruit_stats, outbox_dropped, 192);
AT(bruit_stats, members_full, 200);
AT(bruit_stats, probed_first, 208);
AT(bruit_stats, stalls, 216);
AT(bruit_stats, health, 224);
AT(bruit_stats, datagrams_in, 232);
AT(bruit_stats, datagram_bytes_in, 240);
AT(bruit_stats, datagrams_out, 248);
AT(bruit_stats, datagram_bytes_out, 256);
AT(bruit_stats, datagrams_failed, 264);
AT(bruit_stats, datagrams_too_large, 272);
AT(bruit_stats, receive_errors, 280);
AT(bruit_stats, receive_overflow, 288);
AT(bruit_stats, unreachable, 296);
AT(bruit_stats, path_errors, 304);
AT(bruit_stats, records_in, 312);
AT(bruit_stats, record_bytes_in, 320);
AT(bruit_stats, records_out, 328);
AT(bruit_stats, record_bytes_out, 336);
AT(bruit_stats, records_dropped, 344);
AT(bruit_stats, links, 352);
AT(bruit_stats, links_dialed, 360);
AT(bruit_stats, links_accepted, 368);
AT(bruit_stats, links_refused, 376);
AT(bruit_stats, links_timed_out, 384);
AT(bruit_stats, links_evicted, 392);
AT(bruit_stats, links_broken, 400);
AT(bruit_stats, accept_errors, 408);
AT(bruit_stats, strangers_refused, 416);
AT(bruit_stats, sessions, 424);
AT(bruit_stats, names_unresolved, 432);
AT(bruit_stats, late_ticks, 440);
AT(bruit_stats, events, 448);
AT(bruit_stats, events_coalesced, 456);
AT(bruit_stats, events_dropped, 464);
AT(bruit_stats, handler_panics, 472);
AT(bruit_stats, log_dropped, 480);
AT(bruit_stats, packets_rejected, 488);
AT(bruit_stats, rejected_short, 496);
AT(bruit_stats, rejected_version, 504);
AT(bruit_stats, rejected_flags, 512);
AT(bruit_stats, rejected_session, 520);
AT(bruit_stats, rejected_loopback, 528);
AT(bruit_stats, rejected_mode, 536);
AT(bruit_stats, rejected_key, 544);
AT(bruit_stats, rejected_replay, 552);
AT(bruit_stats, rejected_derive_limit, 560);
AT(bruit_stats, rejected_tag, 568);
AT(bruit_stats, rejected_checksum, 576);
AT(bruit_stats, held_back, 584);
AT(bruit_stats, messages_sent, 592);
AT(bruit_stats, messages_received, 600);
AT(bruit_stats, messages_refused, 608);
AT(bruit_stats, requests, 616);
AT(bruit_stats, requests_timed_out, 624);
AT(bruit_stats, replies_late, 632);
AT(bruit_stats, items_seen, 640);
AT(bruit_stats, items_refused, 648);
AT(bruit_stats, messages_unheard, 656);

ASSERT(BRUIT_OK == 0 && BRUIT_E_INVALID == -1 && BRUIT_E_HANDLE == -2 && BRUIT_E_STATE == -3);
ASSERT(BRUIT_E_DEADLOCK == -4 && BRUIT_E_FORKED == -5 && BRUIT_E_TIMEOUT == -6 && BRUIT_E_BUFFER == -7);
ASSERT(BRUIT_E_TOO_BIG == -8 && BRUIT_E_NOT_FOUND == -9 && BRUIT_E_ADDRESS == -10 && BRUIT_E_IO == -11);
ASSERT(BRUIT_E_AUTH == -12 && BRUIT_E_BUSY == -13 && BRUIT_E_REFUSED == -14 && BRUIT_E_NO_QUORUM == -15);
ASSERT(BRUIT_E_CORRUPT == -16 && BRUIT_E_FAILED == -17 && BRUIT_E_PANIC == -18 && BRUIT_E_NO_HANDLER == -19);
ASSERT(BRUIT_E_UNREACHABLE == -20 && BRUIT_E_CANCELED == -21 && BRUIT_E_REMOTE == -22);
ASSERT(BRUIT_E_NO_REPLY == -23 && BRUIT_E_LIMIT == -24);
ASSERT(BRUIT_NODE_NEW == 0 && BRUIT_NODE_RUNNING == 1 && BRUIT_NODE_LEAVING == 2 && BRUIT_NODE_LEFT == 3);
ASSERT(BRUIT_NODE_STOPPED == 4 && BRUIT_NODE_FAILED == 5);
ASSERT(BRUIT_MEMBER_ALIVE == 1 && BRUIT_MEMBER_SUSPECT == 2 && BRUIT_MEMBER_DEAD == 3 && BRUIT_MEMBER_LEFT == 4);
ASSERT(BRUIT_MEMBER_LOCAL == 1 && BRUIT_OPTION_LIVE == 1 && BRUIT_FOREVER == -1);
ASSERT(BRUIT_EVENT_JOIN == 1 && BRUIT_EVENT_UPDATE == 2 && BRUIT_EVENT_SUSPECT == 4 && BRUIT_EVENT_ALIVE == 8);
ASSERT(BRUIT_EVENT_DEAD == 16 && BRUIT_EVENT_LEFT == 32 && BRUIT_EVENT_FORGOTTEN == 64);
ASSERT(BRUIT_EVENT_CONFLICT == 128 && BRUIT_EVENT_SETTLED == 256 && BRUIT_EVENT_JOINED == 512);
ASSERT(BRUIT_EVENT_LEAVE_DONE == 1024 && BRUIT_EVENT_OVERFLOW == 2048 && BRUIT_EVENT_WARNING == 4096);
ASSERT(BRUIT_EVENT_RECEIPT == 16384 && BRUIT_EVENT_WRITABLE == 32768);
ASSERT(BRUIT_EVENT_FATAL == 8192 && BRUIT_EVENT_ALL == UINT32_MAX);
ASSERT(BRUIT_CHANGED_STATE == 1 && BRUIT_CHANGED_META == 2 && BRUIT_CHANGED_ADDRESS == 4);
ASSERT(BRUIT_CHANGED_EPOCH == 8 && BRUIT_CHANGED_INCARNATION == 16);
ASSERT(BRUIT_OPTION_TEXT == 1 && BRUIT_OPTION_BOOL == 2 && BRUIT_OPTION_COUNT == 3 && BRUIT_OPTION_SIZE == 4);
ASSERT(BRUIT_OPTION_DURATION == 5 && BRUIT_OPTION_RATIO == 6 && BRUIT_OPTION_CHOICE == 7);
ASSERT(BRUIT_LEVEL_ERROR == 3 && BRUIT_LEVEL_WARNING == 4 && BRUIT_LEVEL_NOTICE == 5 && BRUIT_LEVEL_INFO == 6);
ASSERT(BRUIT_LEVEL_DEBUG == 7 && BRUIT_LEVEL_TRACE == 8 && BRUIT_NAME_MAX == 255 && BRUIT_KEY_LEN == 32);
