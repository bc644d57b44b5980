/**
 * bruit: a member of a gossip cluster inside your program. Who is there, who is gone, what do they say about themselves?
 *
 *     bruit_config *config;
 *     bruit_node *node;
 *     bruit_config_new(&config);
 *     bruit_config_set(config, "name", "a");
 *     bruit_config_set(config, "bind", "127.0.0.1:0");
 *     bruit_config_add_seed(config, "127.0.0.1:18946");
 *     if (bruit_node_new(config, &node) < 0 || bruit_node_start(node) < 0)
 *         fprintf(stderr, "%s\n", bruit_last_error());
 *
 * Errors. A call that can fail returns an int: below 0 it is one of BRUIT_E_*, and bruit_last_error() says more; 0 or a
 * count is success. Besides the codes that a function's comment names, each can return BRUIT_E_INVALID (a required
 * pointer is NULL, a text is not UTF-8, a number is out of range, a flag is unknown); where it takes a handle,
 * BRUIT_E_HANDLE; where it takes a node, BRUIT_E_FORKED; where it needs a node that has failed, BRUIT_E_FAILED (see
 * BRUIT_EVENT_FATAL); and, should bruit have a bug, BRUIT_E_PANIC.
 * On failure nothing is written to the caller's memory, but for the needed size on BRUIT_E_BUFFER.
 *
 * Time. `timeout_ms` is 0 for "begin and return at once; an event tells of the end", -1 (BRUIT_FOREVER) for ever. After
 * BRUIT_E_TIMEOUT the work may go on.
 *
 * Data. Texts are NUL-terminated UTF-8, data is a pointer and a length. All that a call is given is copied before it
 * returns. What a call hands out belongs to the object that it came from, unless a function for freeing it is named.
 *
 * Structs begin with `size` and grow at their end. A field is there if `size` reaches beyond it.
 *
 * Threads. Every function may be called from any thread, none from a signal handler. Callbacks come one at a time for
 * each node. Option "dispatch" = "thread" (the default): on a thread of bruit's. "manual": in your bruit_node_dispatch(),
 * when bruit_node_event_fd() is readable. docs/THREADING.md has the details.
 */

#ifndef BRUIT_H
#define BRUIT_H

/* Generated from ffi/ by cbindgen: `BRUIT_UPDATE=1 cargo test --test header` writes it anew. */

#include <stddef.h>
#include <stdint.h>

/** The version that this header belongs to; bruit_version() tells that of the library. */
#define BRUIT_VERSION_MAJOR 0
#define BRUIT_VERSION_MINOR 1
#define BRUIT_VERSION_PATCH 0
#define BRUIT_VERSION "0.1.0"
/** For comparisons: `#if BRUIT_VERSION_NUM >= 0x000200` is "0.2.0 or later". */
#define BRUIT_VERSION_NUM ((BRUIT_VERSION_MAJOR << 16) | (BRUIT_VERSION_MINOR << 8) | BRUIT_VERSION_PATCH)

/** Counts incompatible changes of this interface; part of the SONAME. While it is 0, a minor version may break it. */
#define BRUIT_ABI_VERSION 0

/** Success. */
#define BRUIT_OK 0

/** An argument is NULL, out of range or malformed. */
#define BRUIT_E_INVALID (-1)

/** The handle is NULL, none of ours, or was freed. */
#define BRUIT_E_HANDLE (-2)

/** Not possible in this state. */
#define BRUIT_E_STATE (-3)

/** Called in a callback of the same node, where it would wait for itself. */
#define BRUIT_E_DEADLOCK (-4)

/** The node was started by another process: a forked child cannot use it. */
#define BRUIT_E_FORKED (-5)

/** Not finished in time. The work may go on, or have happened; each function says which. */
#define BRUIT_E_TIMEOUT (-6)

/** The buffer is too small; the needed size was written. */
#define BRUIT_E_BUFFER (-7)

/** Larger than the limit. */
#define BRUIT_E_TOO_BIG (-8)

/** No such thing. */
#define BRUIT_E_NOT_FOUND (-9)

/** Not an address, or it does not resolve. */
#define BRUIT_E_ADDRESS (-10)

/** The operating system refused; bruit_last_errno() has its number. */
#define BRUIT_E_IO (-11)

/** A key is missing or wrong. */
#define BRUIT_E_AUTH (-12)

/** No room, or another thread is at it; try again. */
#define BRUIT_E_BUSY (-13)

/** The cluster refused this node. */
#define BRUIT_E_REFUSED (-14)

/** Too few members can be reached. */
#define BRUIT_E_NO_QUORUM (-15)

/** Stored data is damaged. */
#define BRUIT_E_CORRUPT (-16)

/** The node has failed and must be freed. */
#define BRUIT_E_FAILED (-17)

/** A bug in bruit; the node is unusable. The process is not harmed. */
#define BRUIT_E_PANIC (-18)

/** Nobody listens to that topic there. */
#define BRUIT_E_NO_HANDLER (-19)

/** The member is dead or has left. */
#define BRUIT_E_UNREACHABLE (-20)

/** Canceled by the caller. */
#define BRUIT_E_CANCELED (-21)

/** The other side's handler failed. */
#define BRUIT_E_REMOTE (-22)

/** The other side's handler did not reply. */
#define BRUIT_E_NO_REPLY (-23)

/** A configured limit is reached. */
#define BRUIT_E_LIMIT (-24)

/** bruit_option_desc.kind: any text. */
#define BRUIT_OPTION_TEXT 1

/** "true" or "false". */
#define BRUIT_OPTION_BOOL 2

/** A whole number. */
#define BRUIT_OPTION_COUNT 3

/** A number of bytes: "65536", "64KiB", "1MiB". */
#define BRUIT_OPTION_SIZE 4

/** A time with its unit: "200ms", "1.5s", "2m", "1h". */
#define BRUIT_OPTION_DURATION 5

/** A decimal number: "1.5". */
#define BRUIT_OPTION_RATIO 6

/** One of a few words; see `choices`. */
#define BRUIT_OPTION_CHOICE 7

/** A bit of bruit_option_desc.flags: bruit_node_set() can change it while the node runs. */
#define BRUIT_OPTION_LIVE 1

/** Log levels, as syslog numbers them: something failed. */
#define BRUIT_LEVEL_ERROR 3

/** Something is wrong, and may need attention. */
#define BRUIT_LEVEL_WARNING 4

/** Normal but rare. */
#define BRUIT_LEVEL_NOTICE 5

/** Normal. */
#define BRUIT_LEVEL_INFO 6

/** For finding faults. */
#define BRUIT_LEVEL_DEBUG 7

/** Every frame. */
#define BRUIT_LEVEL_TRACE 8

/** Bytes of a cluster key. */
#define BRUIT_KEY_LEN 32

/** bruit_node_state(): made, not started. */
#define BRUIT_NODE_NEW 0

/** Started. */
#define BRUIT_NODE_RUNNING 1

/** Telling the others that it leaves. */
#define BRUIT_NODE_LEAVING 2

/** Has left, and is silent. */
#define BRUIT_NODE_LEFT 3

/** Stopped for good. */
#define BRUIT_NODE_STOPPED 4

/** Failed by a fault of bruit's own; free it. */
#define BRUIT_NODE_FAILED 5

/** timeout_ms of calls that wait: for ever. */
#define BRUIT_FOREVER (-1)

/** A name that was not listed is alive; with membership = partial: it is a neighbour of this node now. */
#define BRUIT_EVENT_JOIN 1

/** Metadata or the address changed; `changed` says which. */
#define BRUIT_EVENT_UPDATE 2

/** A member does not answer; others are asked about it. */
#define BRUIT_EVENT_SUSPECT 4

/**
 * A member refuted a suspicion, or is back: from death, or as a new run with a higher epoch (then `changed` has
 * BRUIT_CHANGED_EPOCH).
 */
#define BRUIT_EVENT_ALIVE 8

/** A suspicion ran out; with membership = partial: a neighbour of this node does not answer. */
#define BRUIT_EVENT_DEAD 16

/** A member left gracefully. */
#define BRUIT_EVENT_LEFT 32

/**
 * A member has been dead or left for so long that it is listed no more (options "forget_dead", "forget_left"); with
 * membership = partial also: it is well, and no neighbour of this node any more.
 */
#define BRUIT_EVENT_FORGOTTEN 64

/** Another run with a higher epoch holds this node's name; this node has stopped announcing itself. */
#define BRUIT_EVENT_CONFLICT 128

/**
 * The first view is complete: a seed's table is applied, or every seed failed once, and three gossip intervals
 * brought nobody new.
 */
#define BRUIT_EVENT_SETTLED 256

/** A join ended; `count` contacts answered. */
#define BRUIT_EVENT_JOINED 512

/** Peers know that this node left, or the time for telling them is over (then `status` is BRUIT_E_TIMEOUT). */
#define BRUIT_EVENT_LEAVE_DONE 1024

/** The inbox was full; `count` items were dropped. */
#define BRUIT_EVENT_OVERFLOW 2048

/** Something is wrong around this node; `text` says what. */
#define BRUIT_EVENT_WARNING 4096

/**
 * The node has failed by a fault of bruit's own, `text` says why. Calls that would need it answer BRUIT_E_FAILED:
 * bruit_node_join(), _leave(), _set(), _set_meta(), _on_event() and _members(). Those that look at it, hear its last
 * events or end it do what they always do.
 */
#define BRUIT_EVENT_FATAL 8192

/** The member has the message that was sent with BRUIT_RECEIPT and this `id`; or will not have it, `status` says why. */
#define BRUIT_EVENT_RECEIPT 16384

/** After BRUIT_E_BUSY there is room again for messages to the member. */
#define BRUIT_EVENT_WRITABLE 32768

/** `count` broadcasts of `member` were missed, and nobody has them any more; `id` is the sequence of the first. */
#define BRUIT_EVENT_GAP 65536

/** A mask for every kind, those of later versions included: ignore a kind that you do not know. */
#define BRUIT_EVENT_ALL 4294967295

/** Bits of bruit_event.changed: the member's state differs from `before`. */
#define BRUIT_CHANGED_STATE 1

/** Its metadata differs. */
#define BRUIT_CHANGED_META 2

/** Its address differs. */
#define BRUIT_CHANGED_ADDRESS 4

/** It is another run of the same name. */
#define BRUIT_CHANGED_EPOCH 8

/** It refuted something. */
#define BRUIT_CHANGED_INCARNATION 16

/** Longest topic, in bytes. */
#define BRUIT_TOPIC_MAX 64

/** bruit_node_send(): in order, once, and sent again where a link has ended. Without it: in a datagram that may be lost. */
#define BRUIT_RELIABLE 1

/** Reliable, and BRUIT_EVENT_RECEIPT says when the member has it. */
#define BRUIT_RECEIPT 2

/** Waits for room, where BRUIT_E_BUSY would be the answer. */
#define BRUIT_WAIT 4

/** bruit_node_broadcast(): this node hears it as well. */
#define BRUIT_LOOPBACK 8

/**
 * bruit_node_broadcast(): who hears it has heard before what this node has said like that under the same topic, or has been
 * told by BRUIT_EVENT_GAP that it is lost.
 */
#define BRUIT_ORDERED 16

/** bruit_message.flags: its sender waits for an answer: bruit_message_reply(). */
#define BRUIT_MESSAGE_REQUEST 1

/** It came in order, and once. */
#define BRUIT_MESSAGE_RELIABLE 2

/** It was said to all members. */
#define BRUIT_MESSAGE_BROADCAST 4

/** It was asked of many, and so BRUIT_MESSAGE_REQUEST: answers are of use for a while only. */
#define BRUIT_MESSAGE_QUERY 8

/** bruit_query.flags: who has heard the question says so, whether it answers or not: BRUIT_ANSWER_HEARD. */
#define BRUIT_ACKS 32

/** bruit_answer.kind: a member has answered, or says why it does not. */
#define BRUIT_ANSWER_REPLY 1

/** A member has heard the question, with BRUIT_ACKS. */
#define BRUIT_ANSWER_HEARD 2

/** The last call: nothing more comes. */
#define BRUIT_ANSWER_END 3

/** bruit_node_open_stream(): what either side writes is compressed on its way, where that is shorter. */
#define BRUIT_COMPRESS 32

/** bruit_stream_fd(): what is readable while bruit_stream_read() would not wait. */
#define BRUIT_STREAM_READ 0

/** What is readable, too, while bruit_stream_write() would not wait. */
#define BRUIT_STREAM_WRITE 1

/** bruit_member.state: it answers. */
#define BRUIT_MEMBER_ALIVE 1

/** It did not answer a probe, and may yet refute the suspicion. */
#define BRUIT_MEMBER_SUSPECT 2

/** The suspicion ran out. */
#define BRUIT_MEMBER_DEAD 3

/** It said good-bye. */
#define BRUIT_MEMBER_LEFT 4

/** A bit of bruit_member.flags: this is the node itself. */
#define BRUIT_MEMBER_LOCAL 1

/** A bit of bruit_member.flags: the node has a link with it in the overlay. */
#define BRUIT_MEMBER_NEIGHBOUR 2

/** Longest node name, in bytes, without the NUL. */
#define BRUIT_NAME_MAX 255

/**
 * How a node shall be. Copied by bruit_node_new(), so it can be changed and used again, and freed at any time.
 *
 * A token, not an address: NULL, a freed one and garbage are BRUIT_E_HANDLE. May be used by several threads.
 */
typedef struct bruit_config bruit_config;

/** What bruit keeps behind a bruit_member. */
typedef struct bruit_member_data bruit_member_data;

/**
 * All members at one moment: immutable, sorted by name, shared between snapshots of one view.
 *
 * Take one with bruit_node_members(), free it with bruit_members_free(). It may be used by several threads at
 * once and may outlive its node.
 */
typedef struct bruit_members bruit_members;

/**
 * One member of one cluster. Every function is thread-safe.
 *
 * A token, not an address: NULL, a freed one and garbage are BRUIT_E_HANDLE. In a child process that was
 * forked after bruit_node_start(), every call is BRUIT_E_FORKED.
 */
typedef struct bruit_node bruit_node;

/**
 * Threads that nodes can share: many nodes in one process then need two threads instead of two each. See
 * bruit_config_set_runtime().
 *
 * A token, not an address: NULL, a freed one and garbage are BRUIT_E_HANDLE. May be used by several threads.
 */
typedef struct bruit_runtime bruit_runtime;

/**
 * A byte stream to a member, both ways. One thread may read it and another write it. It may outlive its node, and has ended then.
 *
 * A token, not an address: NULL, a closed one and garbage are BRUIT_E_HANDLE.
 */
typedef struct bruit_stream bruit_stream;

/** One error code, for programs and language bindings that want to list them. */
typedef struct bruit_err_desc {
    /** sizeof(bruit_err_desc). An element of an array: this struct never grows. */
    uint32_t size;
    /** BRUIT_OK or BRUIT_E_*. */
    int32_t code;
    /** "E_TIMEOUT" */
    const char *name;
    /** What bruit_strerror() says. */
    const char *text;
} bruit_err_desc;

/** An option. The pointers are never NULL; a text is "" where it does not apply. */
typedef struct bruit_option_desc {
    /** sizeof(bruit_option_desc). An element of an array: this struct never grows. */
    uint32_t size;
    /** One of BRUIT_OPTION_TEXT, … */
    uint32_t kind;
    /** Bits: BRUIT_OPTION_LIVE. */
    uint32_t flags;
    /** 0. */
    uint32_t reserved;
    /** Its name for bruit_config_set(). */
    const char *key;
    /** Unit of its numbers. */
    const char *unit;
    /** Default in profile "lan", which is the default profile. */
    const char *lan;
    /** Default in profile "wan". */
    const char *wan;
    /** Default in profile "local". */
    const char *local;
    /** Smallest and largest value. */
    const char *bounds;
    /** The words that are allowed, separated by blanks (BRUIT_OPTION_CHOICE). */
    const char *choices;
    /** Where the default comes from. */
    const char *source;
    /** What it does. */
    const char *doc;
    /** Its chapter in the documentation. */
    const char *group;
} bruit_option_desc;

/**
 * Hears the log. `target` is the part of bruit that speaks; the texts are valid during the call only.
 *
 * Called one message at a time for each node, on a dispatcher thread of bruit's, in bruit_node_dispatch(), or
 * in a call on the thread that made it; never where the protocol would have to wait for it. The same calls are
 * allowed as in a bruit_event_fn. What comes faster than it is heard is dropped, and counted.
 */
typedef void (*bruit_log_fn)(int level, const char *target, const char *text, void *user);

/**
 * Frees the user data of a callback: called exactly once, after the last call of the callback has returned and when
 * none can follow, on any thread. Not called where the registration failed: then the data is still yours.
 */
typedef void (*bruit_free_fn)(void *user);

/** A key and its value. */
typedef struct bruit_kv {
    /** sizeof(bruit_kv), the same in all elements of an array; 0 means the three fields below. */
    uint32_t size;
    /** 1 to 255 bytes of text without control characters and '='. */
    const char *key;
    /** Any bytes; NULL deletes the key. */
    const void *value;
    /** Bytes of `value`; not looked at where it is NULL. */
    size_t len;
} bruit_kv;

/** One member as it was when the snapshot or event was made. Owned by that snapshot or event, and gone with it. */
typedef struct bruit_member {
    /** How much of this struct the library filled. */
    uint32_t size;
    /** BRUIT_MEMBER_ALIVE, _SUSPECT, _DEAD or _LEFT. */
    uint32_t state;
    /** Bits: BRUIT_MEMBER_LOCAL, BRUIT_MEMBER_NEIGHBOUR. */
    uint32_t flags;
    /** UDP and TCP port. */
    uint32_t port;
    /** Unique in the cluster; 1 to BRUIT_NAME_MAX bytes of UTF-8. */
    const char *name;
    /** IP and port: "10.0.0.7:18946", "[fd00::7]:18946". */
    const char *address;
    /** The IP alone: "10.0.0.7", "fd00::7". */
    const char *ip;
    /** Tells the runs of one name apart; a later run has a higher one. */
    uint64_t epoch;
    /** How often, in this run, it refuted a suspicion. */
    uint64_t incarnation;
    /** For how long it has been in `state`, by this node's clock; 0 in events. */
    uint64_t state_age_ms;
    /** Round-trip time of probes, smoothed; 0 where unknown, as in events. */
    uint64_t rtt_us;
    /** Version of bruit's protocol that it speaks. */
    uint32_t protocol;
    /** Its option "app_version". */
    uint32_t app_version;
    /** For bruit_member_meta() and its like. */
    const bruit_member_data *data;
} bruit_member;

/**
 * Something that happened. Fields that do not apply are 0 or NULL.
 *
 * Events about one member come in order. They are about other members only, except BRUIT_EVENT_CONFLICT,
 * _LEAVE_DONE and _FATAL. Membership events are never lost: when the application is behind, those about one
 * member are merged, `changed` and `before` then span all of them.
 */
typedef struct bruit_event {
    /** How much of this struct the library filled. */
    uint32_t size;
    /** One of BRUIT_EVENT_*. */
    uint32_t kind;
    /** Bits BRUIT_CHANGED_*: in what `member` differs from `before`. */
    uint32_t changed;
    /** Bits; none are defined yet. */
    uint32_t flags;
    /** The version of the view with this event in it, to compare with bruit_members_view(). */
    uint64_t view;
    /** The member as it is now. */
    const bruit_member *member;
    /** The member as it was; NULL for BRUIT_EVENT_JOIN. */
    const bruit_member *before;
    /**
     * JOINED: numbers the calls of bruit_node_join() on this node, in the order in which they began; RECEIPT: the number
     *     *  that bruit_node_send() gave; GAP: the first sequence that was missed; others: 0. 
     */
    uint64_t id;
    /** How many (JOINED, OVERFLOW, GAP). */
    uint64_t count;
    /** BRUIT_OK or an error code. */
    int32_t status;
    /** For people. */
    const char *text;
} bruit_event;

/**
 * Hears events. `event` and all that it leads to is valid during the call only.
 *
 * Calls are serial: never two at once for one node. In dispatch mode "thread" they come on the runtime's
 * dispatcher thread, in mode "manual" on the thread that calls bruit_node_dispatch(). No lock of bruit is
 * held. Everything may be called but bruit_node_free(), bruit_node_dispatch(), bruit_node_wait(), and
 * bruit_node_stop() with a timeout, on the same node: BRUIT_E_DEADLOCK. A C++ exception or longjmp must not
 * leave the callback.
 */
typedef void (*bruit_event_fn)(const bruit_event *event, void *user);

/** A message to be sent. Set it to zeros and `size` before filling it in. */
typedef struct bruit_out {
    /** sizeof(bruit_out). */
    uint32_t size;
    /** Bits BRUIT_RELIABLE, BRUIT_RECEIPT. */
    uint32_t flags;
    /** To this member; */
    const char *member;
    /** or, where that is NULL, to all others that are alive and have this metadata: "key" or "key=value"; */
    const char *tag;
    /** or, where both are NULL, to each of these. */
    const char *const *members;
    /** How many of them. */
    size_t member_count;
    /** Receive what became of each: BRUIT_OK or an error, and with BRUIT_RECEIPT its number. As many as members; may be NULL. */
    int *statuses;
    /** Those numbers. */
    uint64_t *ids;
    /** At most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic. */
    const char *topic;
    /** What to say. */
    const void *data;
    /** Bytes of it. */
    size_t len;
    /** Of a request: how long to wait for the answer; -1 for ever. */
    int timeout_ms;
    /** Receives what became of it: BRUIT_OK, to several how many have it now in their queue, or an error where none has. */
    int status;
    /** Receives the number of the receipt, with BRUIT_RECEIPT. */
    uint64_t id;
} bruit_out;

/** What a member said, or answered. Valid during the callback that it is given to; bruit_message_ref() keeps it. */
typedef struct bruit_message {
    /** How much of this struct the library filled. */
    uint32_t size;
    /** Bits BRUIT_MESSAGE_*. */
    uint32_t flags;
    /** The name of the member that said it. */
    const char *sender;
    /** In which of its lives; 0 with an answer. */
    uint64_t epoch;
    /** Its topic; "" with an answer. */
    const char *topic;
    /** What was said. */
    const void *data;
    /** Bytes of it. */
    size_t len;
} bruit_message;

/**
 * Hears an answer. `status` is BRUIT_OK and `reply` the answer, or `reply` is NULL, `status` an error and `text` says more.
 * The rules are those of bruit_event_fn. Not called where the node stops first; `user` is freed all the same.
 */
typedef void (*bruit_reply_fn)(int status, const bruit_message *reply, const char *text, void *user);

/**
 * Hears messages. `message` is valid during the call only, unless it is kept with bruit_message_ref(). The rules are those
 * of bruit_event_fn; bruit_node_request() to the own node is BRUIT_E_DEADLOCK, too.
 */
typedef void (*bruit_message_fn)(const bruit_message *message, void *user);

/** Judges a broadcast before it goes on: not 0 accepts it, 0 rejects it. The rules are those of bruit_message_fn. */
typedef int (*bruit_validate_fn)(const bruit_message *message, void *user);

/** A question to all other members, or to some. Set it to zeros and `size` before filling it in. */
typedef struct bruit_query {
    /** sizeof(bruit_query). */
    uint32_t size;
    /** Bits BRUIT_ACKS, BRUIT_LOOPBACK. */
    uint32_t flags;
    /** At most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic. */
    const char *topic;
    /** What to ask. */
    const void *data;
    /** Bytes of it. */
    size_t len;
    /** Only these members; none: all. */
    const char *const *names;
    /** How many names. */
    size_t name_count;
    /** Only members with all of this metadata, each "key" or "key=value". */
    const char *const *tags;
    /** How many tags. */
    size_t tag_count;
    /** How long answers are gathered; 0: as long as is usual in a cluster of this size (option "query_timeout_mult"). */
    int timeout_ms;
    /** Members through which each answer comes once more, against links that are lame in one direction: 0 to 8. */
    uint32_t relay;
} bruit_query;

/** What comes of a question. Valid during the callback that it is given to. */
typedef struct bruit_answer {
    /** How much of this struct the library filled. */
    uint32_t size;
    /** BRUIT_ANSWER_*. */
    uint32_t kind;
    /** Whose it is; "" at the end. */
    const char *sender;
    /** The answer, which bruit_message_ref() keeps; NULL where there is none. */
    const bruit_message *reply;
    /**
     * BRUIT_OK. Of a reply: why there is none, as bruit_node_request() says it. At the end: BRUIT_E_TIMEOUT where some had not answered in
     *    time, BRUIT_E_CANCELED. 
     */
    int status;
    /** Always 0. */
    uint32_t reserved;
    /** What is said about it, or "". */
    const char *text;
    /** At the end: members that were asked, as far as this node knew them. */
    size_t asked;
    /** Those that have answered, also with an error. */
    size_t answered;
    /** Those that have said that they heard the question. */
    size_t heard;
    /** Those that were dead or had left before they answered. */
    size_t gone;
} bruit_answer;

/**
 * Hears what comes of a question: its answers, and at last the end. The rules are those of bruit_event_fn. Not called again
 * where the node stops first; `user` is freed all the same.
 */
typedef void (*bruit_query_fn)(const bruit_answer *answer, void *user);

/**
 * Gets a stream that a member has opened. It is the callback's own, to be closed with bruit_stream_close(): there, or later
 * by any thread. The rules are those of bruit_event_fn; whoever reads to the end here keeps all other callbacks waiting.
 */
typedef void (*bruit_stream_fn)(bruit_stream *stream, void *user);

/**
 * All counters of a node. They begin at 0 and never go down, but for four that say how it is now: rumors_waiting,
 * health, links and sessions.
 */
typedef struct bruit_stats {
    /** To be set to sizeof(bruit_stats) by the caller; receives how much of the struct the library filled. */
    uint32_t size;
    /** 0. */
    uint32_t reserved;
    /** packets opened and handed to the engine */
    uint64_t packets_in;
    /** packets dropped whole because a frame in them was malformed */
    uint64_t malformed;
    /** frames dropped because their sender may not send them */
    uint64_t unexpected;
    /** pings and heartbeats from runs that are no members (yet, or any more) */
    uint64_t unknown_sender;
    /** answers to our pings */
    uint64_t acks;
    /** answers that came after their probe had ended */
    uint64_t acks_late;
    /** probes that were answered by stream only: datagrams are lost on that path */
    uint64_t acks_by_stream;
    /** relays that could not reach the target either */
    uint64_t nacks;
    /** probes that ended without any answer; with detector = phi, silences that reached phi_threshold */
    uint64_t silent;
    /** suspicions begun, ours and others' */
    uint64_t suspicions;
    /** accusations against us that we refuted */
    uint64_t refutations;
    /** members declared dead, by us or others */
    uint64_t deaths;
    /** stale news about the dead or left that was answered with the accusation */
    uint64_t accused_back;
    /** questions not answered because their packet had asked for too much already */
    uint64_t answers_cut;
    /** metadata of others refused because it exceeds 64 KiB or 1,024 keys */
    uint64_t state_refused;
    /** joiners that we let in */
    uint64_t joins_accepted;
    /** joiners that we refused: version, name in use, or another `membership` */
    uint64_t joins_refused;
    /** JOIN frames with a wrong or expired cookie */
    uint64_t cookies_bad;
    /** anti-entropy exchanges begun */
    uint64_t exchanges;
    /** parts of the table sent to newcomers */
    uint64_t table_pulls;
    /** pulls of metadata answered */
    uint64_t state_pulls;
    /** rumors that are still being told */
    uint64_t rumors_waiting;
    /** gossip packets not sent because gossip_budget was spent */
    uint64_t gossip_over_budget;
    /** packets not sent because one turn wanted to send more than the outbox holds */
    uint64_t outbox_dropped;
    /** members not listed because max_members was reached */
    uint64_t members_full;
    /** members told of by a node long out of touch: called before they are listed */
    uint64_t probed_first;
    /** times that the driver was late by more than stall_threshold */
    uint64_t stalls;
    /** local health: 0 is healthy (Lifeguard) */
    uint64_t health;
    /** datagrams received */
    uint64_t datagrams_in;
    /** bytes in datagrams received */
    uint64_t datagram_bytes_in;
    /** datagrams handed to the kernel */
    uint64_t datagrams_out;
    /** bytes in datagrams handed to the kernel */
    uint64_t datagram_bytes_out;
    /** datagrams that the kernel did not take */
    uint64_t datagrams_failed;
    /** datagrams received that are larger than any of ours */
    uint64_t datagrams_too_large;
    /** failed receive calls */
    uint64_t receive_errors;
    /** datagrams that the kernel dropped because the receive buffer was full */
    uint64_t receive_overflow;
    /** ICMP messages that nobody listens at an address */
    uint64_t unreachable;
    /** other ICMP messages about datagrams that we sent */
    uint64_t path_errors;
    /** stream records received */
    uint64_t records_in;
    /** bytes received on links */
    uint64_t record_bytes_in;
    /** stream records written to links */
    uint64_t records_out;
    /** bytes written to links */
    uint64_t record_bytes_out;
    /** stream records dropped because a queue was full, or a link could not be made or ended */
    uint64_t records_dropped;
    /** links open now */
    uint64_t links;
    /** links that we opened */
    uint64_t links_dialed;
    /** links that peers opened */
    uint64_t links_accepted;
    /** connections that were refused or could not be made */
    uint64_t links_refused;
    /** links closed because no connection or valid record came in time */
    uint64_t links_timed_out;
    /** links closed because max_links was reached */
    uint64_t links_evicted;
    /** links closed by errors, ours or the peer's */
    uint64_t links_broken;
    /** connections that could not be accepted: no descriptors, no memory */
    uint64_t accept_errors;
    /** connections closed at once because too many unproven ones were open */
    uint64_t strangers_refused;
    /** senders whose packets can be opened without a new key derivation, now */
    uint64_t sessions;
    /** look-ups of host names that failed */
    uint64_t names_unresolved;
    /** timers that fired late by more than stall_threshold */
    uint64_t late_ticks;
    /** events queued for the application */
    uint64_t events;
    /** membership events folded into later ones because the application was behind */
    uint64_t events_coalesced;
    /** events dropped because the inbox or a queue was full */
    uint64_t events_dropped;
    /** panics of the application's handlers */
    uint64_t handler_panics;
    /** log lines dropped because too many waited */
    uint64_t log_dropped;
    /** packets refused by the envelope, for all reasons together */
    uint64_t packets_rejected;
    /** packets refused: shorter than an empty envelope */
    uint64_t rejected_short;
    /** packets refused: another version of the envelope, or no envelope at all */
    uint64_t rejected_version;
    /** packets refused: a flag that this version does not know */
    uint64_t rejected_flags;
    /** packets refused: the sender's run id is 0 */
    uint64_t rejected_session;
    /** packets refused: sent by this very run */
    uint64_t rejected_loopback;
    /** packets refused: sealed where no key is configured, or in clear where one is */
    uint64_t rejected_mode;
    /** packets refused: a key that is not in the keyring, or another cluster's label */
    uint64_t rejected_key;
    /** packets refused: a counter seen before, or older than the window */
    uint64_t rejected_replay;
    /** packets refused: an unknown sender, above derive_rate a second */
    uint64_t rejected_derive_limit;
    /** packets refused: the tag is wrong: damaged, forged, replayed from elsewhere, or for another run */
    uint64_t rejected_tag;
    /** packets refused: the checksum is wrong: damaged, another cluster's, or for another run */
    uint64_t rejected_checksum;
    /** accusations against us that we did not refute, because our own link fails again and again (`flap_half_life`) */
    uint64_t held_back;
    /** messages to single members that were sent or queued */
    uint64_t messages_sent;
    /** messages handed to the application */
    uint64_t messages_received;
    /** messages and replies refused with E_BUSY because send_queue, or to ourselves inbox_bytes, was full */
    uint64_t messages_refused;
    /** requests that were sent or queued */
    uint64_t requests;
    /** requests that had no answer in time */
    uint64_t requests_timed_out;
    /** replies to requests that had ended */
    uint64_t replies_late;
    /** parts of messages that came again */
    uint64_t items_seen;
    /** parts of messages dropped because they came ahead of the room that was given */
    uint64_t items_refused;
    /** messages dropped because nobody listens to their topic */
    uint64_t messages_unheard;
    /** neighbours in the overlay, now */
    uint64_t neighbours;
    /** neighbours that died, left, or were exchanged for others */
    uint64_t neighbours_lost;
    /** broadcasts of our own */
    uint64_t broadcasts;
    /** broadcasts of our own that were refused because a neighbour had yet to confirm those before (E_BUSY) */
    uint64_t broadcasts_busy;
    /** broadcasts of others that were heard */
    uint64_t broadcasts_in;
    /** broadcasts that came once more */
    uint64_t broadcast_copies;
    /** broadcasts handed to a neighbour, ours and others' */
    uint64_t broadcast_pushes;
    /** broadcasts that came because we missed them */
    uint64_t broadcasts_repaired;
    /** broadcasts sent to who had missed them */
    uint64_t broadcast_answers;
    /** broadcasts missed that nobody has any more: see the event GAP */
    uint64_t broadcasts_lost;
    /** broadcasts, or answers, from before this node was there */
    uint64_t broadcasts_before;
    /** broadcasts refused because they are older than twice broadcast_keep */
    uint64_t broadcasts_stale;
    /** broadcasts dropped because the record of their origin did not come */
    uint64_t broadcasts_unlisted;
    /** broadcasts dropped, to be asked for later: max_origins, or a sequence with too many gaps */
    uint64_t broadcasts_refused;
    /** broadcasts kept for those who missed them, now, in bytes */
    uint64_t broadcast_window_bytes;
    /** questions for missing broadcasts */
    uint64_t grafts;
    /** links taken out of a tree */
    uint64_t prunes;
    /** links of a tree exchanged for shorter ones */
    uint64_t shortcuts;
    /** answers that something is kept no longer */
    uint64_t gone;
    /** vectors sent: how far we have heard each origin */
    uint64_t vectors;
    /** members whose broadcasts are told apart, now, those that are gone included */
    uint64_t broadcast_origins;
    /** members long gone whose broadcasts are told apart no more, because max_origins was reached */
    uint64_t origins_forgotten;
    /** ordered broadcasts that had to wait for one before them */
    uint64_t broadcasts_held;
    /** questions to many that were asked */
    uint64_t queries;
    /** questions to many whose time was over before all had answered */
    uint64_t queries_timed_out;
    /** questions to many that were for us, and handed to the application */
    uint64_t queries_in;
    /** questions to many that were for others, by name or tag */
    uint64_t queries_unmatched;
    /** questions to many that came when their time was over */
    uint64_t queries_late;
    /** questions to many answered with E_BUSY because inbox_bytes was full */
    uint64_t queries_refused;
    /** answers to our questions to many */
    uint64_t answers_in;
    /** answers and acknowledgements that had come by another way */
    uint64_t answer_copies;
    /** answers and acknowledgements dropped: that question has ended, or was never asked, or not of that member */
    uint64_t answers_unasked;
    /** answers to our questions to many dropped because they are larger than query_answer_max */
    uint64_t answers_refused;
    /** answers, acknowledgements and copies of them not sent because send_queue was full */
    uint64_t answers_unsent;
    /** answers and acknowledgements of others that we passed on */
    uint64_t answers_relayed;
    /** answers that we were to pass on and did not: their receiver is not there, or they are too large or not their sender's */
    uint64_t relays_refused;
    /** with membership = partial: calls that met a part of the cluster that we were not connected with */
    uint64_t islands;
    /** byte streams that are open, now */
    uint64_t streams;
    /** byte streams that we opened */
    uint64_t streams_opened;
    /** byte streams that members opened to us */
    uint64_t streams_accepted;
    /** byte streams, ours and theirs, refused because max_streams or max_member_streams was reached */
    uint64_t streams_refused;
    /** byte streams that ended with all that both sides had to say */
    uint64_t streams_done;
    /** byte streams that the other side ended before its time, or does not know */
    uint64_t streams_reset;
    /** byte streams that ended because the member was dead or had left */
    uint64_t streams_unreachable;
    /** words about byte streams that had ended here: they were answered with their end */
    uint64_t streams_unknown;
    /** byte streams that we ended because something of them was missing, or more than there was room for */
    uint64_t streams_broken;
    /** bytes of byte streams that were sent, compressed where they are */
    uint64_t stream_bytes_sent;
    /** bytes of byte streams that came */
    uint64_t stream_bytes_received;
    /** bytes of byte streams that wait for members' acknowledgement, now */
    uint64_t stream_bytes_waiting;
    /** byte streams of members that were refused because nobody listens to their topic */
    uint64_t streams_unheard;
    /** bytes of byte streams that have come and were not read, now */
    uint64_t stream_bytes_unread;
    /** bytes of broadcasts that wait for the application, now */
    uint64_t broadcasts_waiting;
    /** broadcasts that the application was too slow for */
    uint64_t broadcasts_overrun;
    /** broadcasts that the application was asked to judge */
    uint64_t validations;
    /** broadcasts without a verdict within validation_timeout: offered, and not pushed on */
    uint64_t validations_late;
    /** broadcasts that the application rejected */
    uint64_t validations_rejected;
    /** with broadcast = rumor: rounds in which some members were told */
    uint64_t rumor_rounds;
    /** times that a neighbour was waited for no longer, because it was behind with broadcasts for too long */
    uint64_t neighbours_slow;
    /** stalls that others were told of, to be patient (`stall_patience`) */
    uint64_t stalls_told;
} bruit_stats;

/** One counter. */
typedef struct bruit_stat_desc {
    /** sizeof(bruit_stat_desc). An element of an array: this struct never grows. */
    uint32_t size;
    /** 0. */
    uint32_t reserved;
    /** Its name, for bruit_node_stat(). */
    const char *name;
    /** What it counts. */
    const char *doc;
} bruit_stat_desc;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/** The version of the library that is loaded: "0.1.0". Never NULL, never freed. BRUIT_VERSION is that of the header. */
const char *bruit_version(void);

/**
 * The ABI version of the library that is loaded; differs from BRUIT_ABI_VERSION where the program was built
 * for another one.
 */
uint32_t bruit_abi_version(void);

/** The meaning of an error code, in English. Never NULL, never freed; "unknown error code" for other numbers. */
const char *bruit_strerror(int code);

/** The name of an error code: "E_TIMEOUT", "OK". Never NULL, never freed; "E_UNKNOWN" for other numbers. */
const char *bruit_err_name(int code);

/**
 * All error codes, BRUIT_OK first. The table is never freed.
 *
 * \param count receives the number of elements; required.
 * \return the table, or NULL where `count` is NULL.
 */
const bruit_err_desc *bruit_err_descs(size_t *count);

/**
 * What went wrong in the last call that failed on this thread, with the detail that the code alone does not tell:
 * what was given and what was expected.
 *
 * \return never NULL; "" where nothing has failed. Valid until the next failing call on this thread; calls that
 * succeed leave it alone.
 */
const char *bruit_last_error(void);

/**
 * The operating system's number (`errno`) behind the last call that failed on this thread, or 0: EADDRINUSE or
 * EACCES?
 */
int bruit_last_errno(void);

/**
 * Makes a configuration with the defaults of profile "lan". See docs/CONFIGURATION.md, or
 * bruit_option_descs(), for the options.
 *
 * \param out receives the configuration, to be freed with bruit_config_free().
 * \return BRUIT_OK.
 */
int bruit_config_new(bruit_config **out);

/**
 * Frees a configuration. Nodes that were made from it are not affected.
 *
 * \return BRUIT_OK; BRUIT_E_HANDLE.
 */
int bruit_config_free(bruit_config *config);

/**
 * Copies a configuration: the log callback is shared and freed with the last of them, descriptors are shared, too.
 *
 * \param out receives the copy, to be freed with bruit_config_free().
 * \return BRUIT_OK; BRUIT_E_HANDLE.
 */
int bruit_config_dup(const bruit_config *config, bruit_config **out);

/**
 * Sets one option: bruit_config_set(config, "probe_interval", "200ms"). On failure nothing is changed.
 *
 * \param key see bruit_option_descs().
 * \param value with its unit: "200ms", "1.5s", "64KiB", "true".
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such option; BRUIT_E_INVALID: bruit_last_error() says what is expected.
 */
int bruit_config_set(bruit_config *config, const char *key, const char *value);

/**
 * Sets options from a file with lines `key = value`; `#` begins a comment. On failure nothing is changed.
 *
 * \return BRUIT_OK; BRUIT_E_IO: it cannot be read; BRUIT_E_TOO_BIG: it is larger than 1 MiB;
 *         BRUIT_E_NOT_FOUND, BRUIT_E_INVALID as for bruit_config_set(), bruit_last_error() names the line.
 */
int bruit_config_load(bruit_config *config, const char *path);

/**
 * Reads an option back.
 *
 * \param buf receives the value, NUL-terminated. May be NULL where `cap` is 0, to ask for the size.
 * \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such option; BRUIT_E_BUFFER.
 */
int bruit_config_get(const bruit_config *config, const char *key, char *buf, size_t cap, size_t *len);

/**
 * All options. The table is never freed.
 *
 * \param count receives the number of elements; required.
 * \return the table, or NULL where `count` is NULL.
 */
const bruit_option_desc *bruit_option_descs(size_t *count);

/**
 * Adds a member to contact at the start, and again whenever this node is alone.
 *
 * \param address "host:port", "10.0.0.7:18946", "[fd00::7]:18946", or without the port for the usual one. A
 *         name stands for all of its addresses and is resolved anew at each attempt.
 * \return BRUIT_OK; BRUIT_E_ADDRESS.
 */
int bruit_config_add_seed(bruit_config *config, const char *address);

/**
 * Adds a cluster key. The first one seals what this node sends, all of them open what it receives. Without a
 * key nothing is encrypted, and only loopback addresses are allowed unless the option "insecure_plaintext" is
 * true.
 *
 * \param key BRUIT_KEY_LEN bytes of good randomness.
 * \return BRUIT_OK; BRUIT_E_INVALID for another length.
 */
int bruit_config_add_key(bruit_config *config, const void *key, size_t len);

/**
 * Sets a key of the metadata that the node starts with. How much it is in all is looked at by bruit_node_new().
 *
 * \param key 1 to 255 bytes of text without control characters and '='.
 * \param value any bytes, copied; NULL deletes the key, whatever `len` is.
 * \return BRUIT_OK; BRUIT_E_INVALID: a malformed key.
 */
int bruit_config_set_meta(bruit_config *config, const char *key, const void *value, size_t len);

/**
 * Uses sockets that are bound already, instead of binding the option "bind": for socket activation, dropped
 * privileges, hot restarts. The descriptors are duplicated; yours stay yours, to be closed when you like. The
 * duplicates keep the port bound until the configuration, its copies, and nodes of it that were not started are
 * freed.
 *
 * \param udp_fd a bound UDP socket, or -1 for none.
 * \param tcp_fd a listening TCP socket on the same port, or -1 for none.
 * \return BRUIT_OK; BRUIT_E_INVALID: not a socket of that kind.
 */
int bruit_config_adopt_sockets(bruit_config *config, int udp_fd, int tcp_fd);

/**
 * Makes nodes of this configuration share the threads of a runtime. Without one, each node has its own.
 *
 * \param runtime kept alive by the configuration and its nodes; bruit_runtime_free() may be called at any time.
 * \return BRUIT_OK; BRUIT_E_HANDLE.
 */
int bruit_config_set_runtime(bruit_config *config, bruit_runtime *runtime);

/**
 * Hears the log of nodes of this configuration. Without it they are silent: bruit never writes to stdout or
 * stderr.
 *
 * \param max_level the most detailed level wanted, BRUIT_LEVEL_*: 0 to 8.
 * \param callback may be NULL: then the log is silent again. Replaces the one that was set before.
 * \param user handed to the callback; may be NULL.
 * \param free_fn frees `user` once this configuration, its copies and all of its nodes are gone or have
 *         another; may be NULL.
 * \return BRUIT_OK; BRUIT_E_INVALID: the level is out of range.
 */
int bruit_config_on_log(bruit_config *config,
                        int max_level,
                        bruit_log_fn callback,
                        void *user,
                        bruit_free_fn free_fn);

/**
 * Makes a runtime. Its threads start with its first node.
 *
 * \param out receives the runtime, to be freed with bruit_runtime_free().
 * \return BRUIT_OK; BRUIT_E_IO.
 */
int bruit_runtime_new(bruit_runtime **out);

/**
 * Gives a runtime up. Its threads end when its nodes, and the configurations that name it, are gone as well;
 * this does not wait for them.
 *
 * \return BRUIT_OK; BRUIT_E_HANDLE.
 */
int bruit_runtime_free(bruit_runtime *runtime);

/**
 * Makes a node. Binds nothing and starts no thread, so it survives daemon(), fork(), chroot() and setuid().
 *
 * \param config is copied.
 * \param out receives the node, to be given back with bruit_node_free() or bruit_node_release().
 * \return BRUIT_OK; BRUIT_E_INVALID, BRUIT_E_ADDRESS: options that do not fit together, bruit_last_error() names
 *         them; BRUIT_E_TOO_BIG: all keys and values of the metadata are larger than the option "meta_max";
 *         BRUIT_E_AUTH: an address that others can reach, and no key.
 */
int bruit_node_new(const bruit_config *config, bruit_node **out);

/**
 * Binds, starts the threads, and begins to join the seeds, which it never stops trying. On failure the node is
 * still BRUIT_NODE_NEW, and can be started again.
 *
 * \return BRUIT_OK; BRUIT_E_IO: bruit_last_errno() says whether it is EADDRINUSE or EACCES; BRUIT_E_ADDRESS:
 *         "bind" or "advertise" does not resolve; BRUIT_E_STATE: it was started before.
 */
int bruit_node_start(bruit_node *node);

/**
 * Asks members of a cluster to let this node in, besides the seeds of the configuration.
 *
 * \param addresses "host:port", or "host" with the usual port.
 * \param timeout_ms 0 = begin and return 0 at once, BRUIT_EVENT_JOINED follows; -1 = for ever, which is at
 *         most the option "join_timeout".
 * \return how many answered (at least 1, when it waited); BRUIT_E_ADDRESS: malformed; BRUIT_E_TIMEOUT: none
 *         has answered yet, the attempt goes on until "join_timeout" and ends with BRUIT_EVENT_JOINED;
 *         BRUIT_E_REFUSED: all that answered refused; BRUIT_E_STATE: not running.
 */
int bruit_node_join(bruit_node *node, const char *const *addresses, size_t count, int timeout_ms);

/**
 * Leaves gracefully: the others see LEFT instead of finding out. The node is silent afterwards; stop or free
 * it then.
 *
 * \param timeout_ms 0 = begin and return at once, BRUIT_EVENT_LEAVE_DONE follows; -1 = until it is done.
 * \return BRUIT_OK: enough of the others know; BRUIT_E_TIMEOUT: they may know; the node goes silent all the
 *         same; BRUIT_E_STATE: not running.
 */
int bruit_node_leave(bruit_node *node, int timeout_ms);

/**
 * Stops at once: the others will find out (see bruit_node_leave() for the polite way). Idempotent. A stopped
 * node cannot be started again, but its last view can still be read.
 *
 * \param timeout_ms 0 = begin to stop and return, which is legal anywhere, in callbacks too; -1 = until it has
 *         stopped.
 * \return BRUIT_OK: stopped, no callback runs any more and user data is freed; BRUIT_E_TIMEOUT: still
 *         stopping, no further callback starts, call again to wait; BRUIT_E_DEADLOCK: with a timeout, in a
 *         callback of this node.
 */
int bruit_node_stop(bruit_node *node, int timeout_ms);

/**
 * Stops the node, waits for that, and frees it. Of two threads that free one node, one gets BRUIT_E_HANDLE.
 *
 * \return BRUIT_OK; BRUIT_E_DEADLOCK in a callback of this node, and nothing has happened:
 *         bruit_node_release() is for there.
 */
int bruit_node_free(bruit_node *node);

/**
 * Gives the node up: no further callback starts, and it stops and frees itself on its own time. Never blocks,
 * and is legal anywhere. The handle is worthless when this returns.
 *
 * A callback that is under way on another thread may still be running then; its user data is freed when it has
 * returned.
 *
 * \return BRUIT_OK; BRUIT_E_HANDLE.
 */
int bruit_node_release(bruit_node *node);

/** \return BRUIT_NODE_NEW, _RUNNING, _LEAVING, _LEFT, _STOPPED or _FAILED. */
int bruit_node_state(const bruit_node *node);

/**
 * The node's name: the option "name", or the one that was made up when the node was.
 *
 * \param buf receives the name, NUL-terminated: BRUIT_NAME_MAX + 1 bytes always suffice. May be NULL where
 *         `cap` is 0.
 * \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
 * \return BRUIT_OK; BRUIT_E_BUFFER.
 */
int bruit_node_name(const bruit_node *node, char *buf, size_t cap, size_t *len);

/**
 * The address that the others are told, with the port that was really bound: "10.0.0.7:18946".
 *
 * \param buf receives the address, NUL-terminated: 64 bytes always suffice. May be NULL where `cap` is 0.
 * \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
 * \return BRUIT_OK; BRUIT_E_STATE before bruit_node_start(); BRUIT_E_BUFFER.
 */
int bruit_node_address(const bruit_node *node, char *buf, size_t cap, size_t *len);

/**
 * Changes an option of this node, if it is one of those that are marked live (BRUIT_OPTION_LIVE). On failure
 * nothing is changed.
 *
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such option; BRUIT_E_STATE: not a live one; BRUIT_E_INVALID:
 *         bruit_last_error() says what is expected.
 */
int bruit_node_set(bruit_node *node, const char *key, const char *value);

/**
 * Changes this node's metadata. All keys of one call change together: the others see one UPDATE.
 *
 * \param changes keys and values, copied; a value of NULL deletes its key, whatever its `len` is.
 * \return BRUIT_OK; BRUIT_E_TOO_BIG: all keys and values together would be larger than the option "meta_max";
 *         BRUIT_E_INVALID: a malformed key; BRUIT_E_STATE: not running (bruit_config_set_meta() is for before the
 *         start). Nothing is changed then.
 */
int bruit_node_set_meta(bruit_node *node, const bruit_kv *changes, size_t count);

/** The name of a kind of event: "JOIN". Never NULL, never freed; "UNKNOWN" for other numbers. */
const char *bruit_event_name(uint32_t kind);

/**
 * Subscribes to events. Subscribed before bruit_node_start(), a callback hears everything from the first event
 * on; one that comes later hears what happens from then on, and finds what was before in a snapshot.
 *
 * \param mask the kinds wanted: BRUIT_EVENT_* or'ed together, or BRUIT_EVENT_ALL. Unknown bits, and none, are
 *         BRUIT_E_INVALID.
 * \param callback required.
 * \param user handed to the callback; may be NULL.
 * \param free_fn frees `user`; may be NULL. See bruit_free_fn.
 * \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
 * \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
 */
int bruit_node_on_event(bruit_node *node,
                        uint32_t mask,
                        bruit_event_fn callback,
                        void *user,
                        bruit_free_fn free_fn,
                        uint64_t *subscription);

/**
 * Ends a subscription. After this has returned, its callback does not run and will not run again: a call that
 * is under way on another thread is waited for. Inside its own callback it returns at once, and that call is
 * the last.
 *
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND where there is no such subscription (any more).
 */
int bruit_node_unsubscribe(bruit_node *node, uint64_t subscription);

/**
 * A descriptor for poll, epoll and event loops, of a node in dispatch mode "manual": readable while events
 * wait. Level-triggered. Call bruit_node_dispatch() when it is readable; never read, write or close it. The
 * same descriptor for the node's whole life, from before bruit_node_start() until it is freed.
 *
 * \return the descriptor; BRUIT_E_STATE on a node in mode "thread".
 */
int bruit_node_event_fd(const bruit_node *node);

/**
 * Runs callbacks for waiting events on the calling thread; of a node in dispatch mode "manual". Never waits.
 *
 * \param max at most so many events; 0 or less: what was waiting when the call began.
 * \return how many events were taken; BRUIT_E_BUSY while another thread is at it; BRUIT_E_STATE on a node in
 *         mode "thread"; BRUIT_E_DEADLOCK in a callback of this node.
 */
int bruit_node_dispatch(bruit_node *node, int max);

/**
 * Waits until an event waits, for programs without an event loop; of a node in dispatch mode "manual".
 *
 * \param timeout_ms 0 = just look, -1 = for ever.
 * \return 1 where events wait, or lines for the log callback, which bruit_node_dispatch() hands over, too, and does
 *         not count; 0 after the timeout and after bruit_node_wakeup(); BRUIT_E_STATE on a stopped node without
 *         events, and on a node in mode "thread"; BRUIT_E_DEADLOCK in a callback of this node.
 */
int bruit_node_wait(bruit_node *node, int timeout_ms);

/**
 * Ends a bruit_node_wait() of another thread, or the next one where none is under way; makes the event descriptor
 * readable until the next bruit_node_dispatch(). Not for signal handlers.
 *
 * \return BRUIT_OK; BRUIT_E_STATE on a node in mode "thread".
 */
int bruit_node_wakeup(bruit_node *node);

/**
 * Takes one event without a callback, for programs that would rather pull; of a node in dispatch mode
 * "manual". Without any subscription all kinds of events come; once there are some, only the kinds that one of
 * them asks for. Their callbacks do not run for an event that is taken: use either this or bruit_node_dispatch().
 *
 * \param out receives the event, to be freed with bruit_event_free(). It may outlive the node.
 * \return 1 with an event, 0 where none waits (`out` is not written); BRUIT_E_STATE on a node in mode
 *         "thread"; BRUIT_E_BUSY while another thread is in bruit_node_dispatch().
 */
int bruit_node_next_event(bruit_node *node, const bruit_event **out);

/**
 * Frees an event of bruit_node_next_event(), with its members. Not for events that a callback is given. NULL
 * is allowed; freeing one twice is undefined.
 */
void bruit_event_free(const bruit_event *event);

/**
 * Says something to all members. Each that lives hears it once; what one has missed for so long that nobody has it any more
 * is said to it by BRUIT_EVENT_GAP.
 *
 * \param topic at most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic.
 * \param flags bits BRUIT_LOOPBACK, BRUIT_ORDERED, BRUIT_WAIT.
 * \return BRUIT_OK; BRUIT_E_TOO_BIG: above the option "max_broadcast"; BRUIT_E_BUSY: the neighbours have yet to take what was
 *         said before, BRUIT_EVENT_WRITABLE about this node follows; BRUIT_E_STATE: not running. Nothing is said then.
 */
int bruit_node_broadcast(bruit_node *node,
                         const char *topic,
                         const void *data,
                         size_t len,
                         uint32_t flags);

/**
 * Sends a message to a member. BRUIT_OK means that it is queued.
 *
 * \param member its name; the own one is allowed.
 * \param topic at most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic.
 * \param flags bits BRUIT_RELIABLE, BRUIT_WAIT; for a receipt see bruit_node_submit().
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such member; BRUIT_E_UNREACHABLE: dead, or has left; BRUIT_E_TOO_BIG: above the
 *         option "max_message"; BRUIT_E_BUSY: the option "send_queue" is reached, BRUIT_EVENT_WRITABLE follows;
 *         BRUIT_E_STATE: not running. Nothing is sent then.
 */
int bruit_node_send(bruit_node *node,
                    const char *member,
                    const char *topic,
                    const void *data,
                    size_t len,
                    uint32_t flags);

/**
 * Sends several messages at once, to members, to lists of them or to the holders of a tag: one lock and one wake for all of
 * them. Never waits.
 *
 * \param outs receive a `status` each, which is what bruit_node_send() would return, and with BRUIT_RECEIPT an `id`.
 * \return how many of them were sent; what is wrong with the others is in their `status`.
 */
int bruit_node_submit(bruit_node *node,
                      bruit_out *outs,
                      size_t count);

/**
 * Asks a member, and waits for its answer.
 *
 * \param timeout_ms not 0; -1 until it answers, or is dead or leaves.
 * \param reply receives the answer, to be given back with bruit_message_unref(). May be NULL.
 * \return BRUIT_OK; what bruit_node_send() returns; BRUIT_E_TIMEOUT: no answer in time, the member may have acted;
 *         BRUIT_E_NO_HANDLER: nobody listens to the topic there; BRUIT_E_NO_REPLY: who does has not replied;
 *         BRUIT_E_REMOTE, and whatever else it says: bruit_last_error() has its text; BRUIT_E_LIMIT: the option
 *         "max_requests" is reached; BRUIT_E_CANCELED: the node was stopped meanwhile; BRUIT_E_DEADLOCK: of the own
 *         node, in a callback of it.
 */
int bruit_node_request(bruit_node *node,
                       const char *member,
                       const char *topic,
                       const void *data,
                       size_t len,
                       int timeout_ms,
                       bruit_message **reply);

/**
 * Asks a member; the answer comes to a callback.
 *
 * \param out whom, what, and how long to wait; `tag` is BRUIT_E_INVALID. Its status and id are not written.
 * \param callback required.
 * \param user handed to the callback; may be NULL.
 * \param free_fn frees `user`; may be NULL. See bruit_free_fn.
 * \param id receives a number for bruit_node_cancel(); may be NULL.
 * \return BRUIT_OK; what bruit_node_send() returns; BRUIT_E_LIMIT: the option "max_requests" is reached.
 */
int bruit_node_request_start(bruit_node *node,
                             const bruit_out *out,
                             bruit_reply_fn callback,
                             void *user,
                             bruit_free_fn free_fn,
                             uint64_t *id);

/**
 * Gives a request of bruit_node_request_start() up: its callback hears BRUIT_E_CANCELED.
 *
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND: it has ended already.
 */
int bruit_node_cancel(bruit_node *node, uint64_t id);

/**
 * Subscribes to the messages under a topic. All callbacks that match hear a message, in the order of their subscription.
 * Of messages that nobody listens to, a request is answered with BRUIT_E_NO_HANDLER, and the rest is dropped.
 *
 * \param topic NULL is "", the default topic; "*" are all.
 * \param callback required.
 * \param user handed to the callback; may be NULL.
 * \param free_fn frees `user`; may be NULL. See bruit_free_fn.
 * \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
 * \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
 */
int bruit_node_on_message(bruit_node *node,
                          const char *topic,
                          bruit_message_fn callback,
                          void *user,
                          bruit_free_fn free_fn,
                          uint64_t *subscription);

/**
 * Judges what others broadcast under a topic, before it goes on: what is rejected is neither handed out here nor passed on or
 * offered to others. Where several match, all have to accept. What has no verdict within the option "validation_timeout" is
 * offered to others, and pushed on to nobody. bruit_node_unsubscribe() ends it: what waits then is accepted.
 *
 * \param topic NULL is "", the default topic; "*" are all.
 * \param callback required. It runs where other callbacks do.
 * \param user handed to the callback; may be NULL.
 * \param free_fn frees `user`; may be NULL. See bruit_free_fn.
 * \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
 * \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
 */
int bruit_node_on_validate(bruit_node *node,
                           const char *topic,
                           bruit_validate_fn callback,
                           void *user,
                           bruit_free_fn free_fn,
                           uint64_t *subscription);

/**
 * Takes messages without a callback, for programs that would rather pull; in either dispatch mode. The first call
 * subscribes to all topics: call it once before bruit_node_start() to hear everything. Callbacks hear the same messages.
 *
 * \param out receives the messages, each to be given back with bruit_message_unref().
 * \param cap at most so many.
 * \param timeout_ms how long to wait for the first: 0 not at all, -1 for ever.
 * \return how many; 0 after the timeout; BRUIT_E_STATE on a stopped node without messages.
 */
int bruit_node_recv(bruit_node *node,
                    bruit_message **out,
                    size_t cap,
                    int timeout_ms);

/**
 * Keeps a message beyond its callback, without a copy of its data. It may outlive the node, and counts against the
 * option "inbox_bytes" as long as it is kept.
 *
 * \return what to hold instead of `message`, until bruit_message_unref(); NULL for NULL.
 */
bruit_message *bruit_message_ref(const bruit_message *message);

/**
 * Gives back what bruit_message_ref(), bruit_node_request() or bruit_node_recv() gave. A request that is given back
 * without an answer is answered with BRUIT_E_NO_REPLY. NULL is allowed; once too often is undefined.
 */
void bruit_message_unref(bruit_message *message);

/**
 * Answers a request, in its callback or later, from any thread. Without it, and once nobody keeps the message, the
 * requester gets BRUIT_E_NO_REPLY at once.
 *
 * \return BRUIT_OK; BRUIT_E_STATE: no request, or answered already; BRUIT_E_UNREACHABLE: who asked is gone;
 *         BRUIT_E_TOO_BIG, BRUIT_E_BUSY: as with bruit_node_send(); then it may be tried again.
 */
int bruit_message_reply(const bruit_message *message, const void *data, size_t len);

/**
 * Answers a request with an error.
 *
 * \param code what bruit_node_request() returns there: BRUIT_E_REMOTE is the usual one. Codes that speak of the asker's own
 *        node or handles (BRUIT_E_HANDLE, _STATE, _DEADLOCK, _FORKED, _BUFFER, _FAILED, _PANIC) arrive as that.
 * \param words what bruit_last_error() says there; may be NULL.
 * \return as bruit_message_reply(); BRUIT_E_INVALID: not an error code.
 */
int bruit_message_fail(const bruit_message *message,
                       int code,
                       const char *words);

/**
 * Asks all other members, or those that match, and gathers their answers for a while. There it is a message as those of
 * bruit_node_request(), with the flag BRUIT_MESSAGE_QUERY. It ends when all that were asked have answered or are gone, or when the
 * time is over.
 *
 * \param query whom to ask, and what.
 * \param callback required.
 * \param user handed to the callback; may be NULL.
 * \param free_fn frees `user`; may be NULL. See bruit_free_fn.
 * \param id receives a number for bruit_node_cancel(); may be NULL.
 * \return BRUIT_OK; BRUIT_E_INVALID: no name, tag or topic, or too many copies; BRUIT_E_TOO_BIG: above the option "max_broadcast", or
 *         names and tags of more than 16 KiB; BRUIT_E_LIMIT: the option "max_queries" is reached; BRUIT_E_BUSY: as
 *         bruit_node_broadcast(). Nothing is said then.
 */
int bruit_node_query_start(bruit_node *node,
                           const bruit_query *query,
                           bruit_query_fn callback,
                           void *user,
                           bruit_free_fn free_fn,
                           uint64_t *id);

/**
 * Opens a byte stream to a member, or to this node itself. Returns at once: where nobody takes it there, reading and writing
 * are BRUIT_E_NO_HANDLER.
 *
 * \param member its name.
 * \param topic at most BRUIT_TOPIC_MAX bytes; NULL is "", the default topic.
 * \param flags bits BRUIT_COMPRESS.
 * \param stream receives the stream, to be closed with bruit_stream_close().
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such member; BRUIT_E_UNREACHABLE: dead, or has left; BRUIT_E_LIMIT: the option
 *         "max_streams" or "max_member_streams" is reached; BRUIT_E_STATE: not running.
 */
int bruit_node_open_stream(bruit_node *node,
                           const char *member,
                           const char *topic,
                           uint32_t flags,
                           bruit_stream **stream);

/**
 * Takes the streams that members open under a topic. Of several callbacks that match, the first gets the stream. Where there
 * is none, who opened it gets BRUIT_E_NO_HANDLER.
 *
 * \param topic NULL is "", the default topic; "*" are all.
 * \param callback required.
 * \param user handed to the callback; may be NULL.
 * \param free_fn frees `user`; may be NULL. See bruit_free_fn.
 * \param subscription receives a number for bruit_node_unsubscribe(); may be NULL.
 * \return BRUIT_OK; BRUIT_E_STATE on a stopped node.
 */
int bruit_node_on_stream(bruit_node *node,
                         const char *topic,
                         bruit_stream_fn callback,
                         void *user,
                         bruit_free_fn free_fn,
                         uint64_t *subscription);

/**
 * Reads what there is: at least a byte, at most `cap`.
 *
 * \param timeout_ms how long to wait for something: 0 not at all, -1 for ever.
 * \return how many bytes; 0 at the end; BRUIT_E_BUSY: nothing yet, with `timeout_ms` 0; BRUIT_E_TIMEOUT: nothing in time;
 *         when all that has come is read: BRUIT_E_UNREACHABLE: the member is dead or has left; BRUIT_E_NO_HANDLER: nobody took the stream there;
 *         BRUIT_E_LIMIT: it has too many; BRUIT_E_CANCELED: this node was stopped; BRUIT_E_REMOTE, and whatever else
 *         bruit_stream_fail() was given there; BRUIT_E_CORRUPT: what came is no
 *         compressed block; BRUIT_E_STATE: closed meanwhile.
 */
int bruit_stream_read(bruit_stream *stream,
                      void *buf,
                      size_t cap,
                      int timeout_ms);

/**
 * Writes as much as there is room for: at least a byte, at most `len`. The data is copied before this returns.
 *
 * \param timeout_ms how long to wait for room: 0 not at all, -1 for ever.
 * \return how many bytes; BRUIT_E_BUSY: no room, with `timeout_ms` 0; BRUIT_E_TIMEOUT: none in time; BRUIT_E_STATE: shut down
 *         or closed; BRUIT_E_CANCELED: the other side has closed it; and what ends bruit_stream_read().
 */
int bruit_stream_write(bruit_stream *stream,
                       const void *data,
                       size_t len,
                       int timeout_ms);

/**
 * A descriptor for poll(), epoll and event loops. Wait for it to be readable, in either case; never read or close it. It
 * closes with the stream.
 *
 * \param which BRUIT_STREAM_READ or BRUIT_STREAM_WRITE.
 * \return the descriptor; BRUIT_E_IO: there is none left.
 */
int bruit_stream_fd(const bruit_stream *stream,
                    int which);

/**
 * The name of the member at the other end.
 *
 * \param buf receives the name, NUL-terminated. May be NULL where `cap` is 0.
 * \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
 * \return BRUIT_OK; BRUIT_E_BUFFER.
 */
int bruit_stream_peer(const bruit_stream *stream, char *buf, size_t cap, size_t *len);

/**
 * The topic that it was opened under.
 *
 * \param buf receives the topic, NUL-terminated: BRUIT_TOPIC_MAX + 1 bytes suffice. May be NULL where `cap` is 0.
 * \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
 * \return BRUIT_OK; BRUIT_E_BUFFER.
 */
int bruit_stream_topic(const bruit_stream *stream, char *buf, size_t cap, size_t *len);

/**
 * There is no more to come from here: the other side reads to the end, and may go on writing.
 *
 * \return BRUIT_OK.
 */
int bruit_stream_shutdown(bruit_stream *stream);

/**
 * Ends both ways, and the handle: the other side reads what was written to its end, and what it writes is BRUIT_E_CANCELED.
 * A read or write that waits on another thread is BRUIT_E_STATE. Legal anywhere, and never waits.
 *
 * \return BRUIT_OK; BRUIT_E_HANDLE.
 */
int bruit_stream_close(bruit_stream *stream);

/**
 * Ends both ways as something that is not whole: the other side reads what has come there, and then gets this error, as does
 * who writes. Here reading and writing are BRUIT_E_STATE from now on, and bruit_stream_close() is still to be called. Nothing
 * happens where it has ended already. Legal anywhere, and never waits.
 *
 * \param code what bruit_stream_read() returns there: BRUIT_E_REMOTE is the usual one, and what BRUIT_E_BUSY and BRUIT_E_TIMEOUT arrive as.
 * \param words what bruit_last_error() says there, cut to 1,024 bytes; may be NULL.
 * \return BRUIT_OK; BRUIT_E_INVALID: not an error code.
 */
int bruit_stream_fail(bruit_stream *stream,
                      int code,
                      const char *words);

/** The name of a member's state: "ALIVE". Never NULL, never freed; "UNKNOWN" for other numbers. */
const char *bruit_member_state_name(uint32_t state);

/**
 * Takes a snapshot of the members: the node itself, the living, the suspected, and the dead and left until they are
 * forgotten. The first snapshot after a change, or after a second, costs time for each member; all others of that
 * moment share it, and cost the same for any number of members.
 *
 * \param out receives the snapshot, to be freed with bruit_members_free().
 * \return BRUIT_OK; BRUIT_E_STATE before the node was started for the first time.
 */
int bruit_node_members(const bruit_node *node, bruit_members **out);

/** Frees a snapshot and all members that were taken from it. NULL is allowed; freeing one twice is undefined. */
void bruit_members_free(bruit_members *members);

/**
 * The version of the current view, which every change that an event reports counts up. An event whose `view` is not
 * above that of a snapshot is already in the snapshot.
 *
 * \return the version; 0 before the node was started, or where the call failed (see bruit_last_error()).
 */
uint64_t bruit_node_view(const bruit_node *node);

/** The number of members in a snapshot, this node and the dead and left included; 0 for NULL. */
size_t bruit_members_len(const bruit_members *members);

/** The version of a snapshot, to compare with bruit_event.view; 0 for NULL. */
uint64_t bruit_members_view(const bruit_members *members);

/** The node itself; NULL for NULL. */
const bruit_member *bruit_members_local(const bruit_members *members);

/** The member at `index`, in order of names; NULL from bruit_members_len() on. */
const bruit_member *bruit_members_at(const bruit_members *members, size_t index);

/** The member of that name, in whatever state; NULL where there is none. */
const bruit_member *bruit_members_find(const bruit_members *members, const char *name);

/**
 * Members that carry a tag, among those that are alive or suspected, in order of names.
 *
 * \param key_or_key_value "role" finds those that have the key at all, "role=db" those with this value.
 * \param out receives up to `cap` members, which belong to the snapshot; may be NULL where `cap` is 0.
 * \return how many there are, which may be more than `cap`; 0 also where the call failed (see bruit_last_error()).
 */
size_t bruit_members_with(const bruit_members *members,
                          const char *key_or_key_value,
                          const bruit_member **out,
                          size_t cap);

/**
 * One value of a member's metadata.
 *
 * \param value receives the value, which belongs to the member; a NUL that `len` does not count follows it, so
 *         that text can be used as it is. May be NULL.
 * \param len receives its length in bytes. May be NULL.
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND where the member does not have the key.
 */
int bruit_member_meta(const bruit_member *member, const char *key, const void **value, size_t *len);

/** The number of keys in a member's metadata; 0 for NULL. */
size_t bruit_member_meta_len(const bruit_member *member);

/**
 * A member's metadata by number, in order of keys.
 *
 * \param index below bruit_member_meta_len().
 * \param key receives the key. May be NULL.
 * \param value, len as in bruit_member_meta().
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND from bruit_member_meta_len() on.
 */
int bruit_member_meta_at(const bruit_member *member,
                         size_t index,
                         const char **key,
                         const void **value,
                         size_t *len);

/**
 * Reads all counters.
 *
 * \param out its `size` has to be set; fields beyond what the library knows are left alone.
 * \return BRUIT_OK; BRUIT_E_INVALID: `size` is too small for anything.
 */
int bruit_node_stats(const bruit_node *node, bruit_stats *out);

/**
 * All counters that bruit_node_stat() knows. The table is never freed.
 *
 * \param count receives the number of elements; required.
 * \return the table, or NULL where `count` is NULL.
 */
const bruit_stat_desc *bruit_stat_descs(size_t *count);

/**
 * Reads one counter by its name.
 *
 * \param value receives the count; required.
 * \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such counter.
 */
int bruit_node_stat(const bruit_node *node, const char *name, uint64_t *value);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BRUIT_H */
