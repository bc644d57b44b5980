/* Messages: sent, heard, pulled, asked, answered; and what C may do with one. */
#include "test.h"

/* Remembers messages as "sender topic data", and answers requests. */
typedef struct ear {
    pthread_mutex_t lock;
    pthread_cond_t more;
    int count, freed, statuses[16];
    char said[64][96];
    bruit_message *kept;
} ear;

static void ear_note(ear *e, const char *sender, const char *topic, const void *data, size_t len, int status) {
    pthread_mutex_lock(&e->lock);
    CHECK(e->count < 64);
    snprintf(e->said[e->count], sizeof e->said[0], "%s %s %.*s", sender, topic, (int)(len < 60 ? len : 60), (const char *)data);
    e->statuses[e->count % 16] = status;
    e->count++;
    pthread_cond_broadcast(&e->more);
    pthread_mutex_unlock(&e->lock);
}

static void ear_hear(const bruit_message *message, void *user) {
    ear *e = user;
    EQ(message->size, sizeof *message);
    if (message->flags & BRUIT_MESSAGE_REQUEST) {
        if (strcmp(message->topic, "echo") == 0) {
            OK(bruit_message_reply(message, message->data, message->len));
            EQ(bruit_message_reply(message, "", 0), BRUIT_E_STATE);
        } else if (strcmp(message->topic, "fails") == 0) {
            EQ(bruit_message_fail(message, -1000, "no"), BRUIT_E_INVALID);
            OK(bruit_message_fail(message, BRUIT_E_REMOTE, "no such table"));
        } else if (strcmp(message->topic, "later") == 0) {
            e->kept = bruit_message_ref(message);
        }
    } else {
        EQ(bruit_message_reply(message, "", 0), BRUIT_E_STATE);
    }
    ear_note(e, message->sender, message->topic, message->data, message->len, 0);
}

static void ear_answer(int status, const bruit_message *reply, const char *text, void *user) {
    CHECK((status == BRUIT_OK) == (reply != NULL));
    CHECK(text != NULL);
    ear_note(user, reply ? reply->sender : "", reply ? reply->topic : "", reply ? reply->data : "", reply ? reply->len : 0, status);
}

static void ear_freed(void *user) {
    ear *e = user;
    pthread_mutex_lock(&e->lock);
    e->freed++;
    pthread_cond_broadcast(&e->more);
    pthread_mutex_unlock(&e->lock);
}

static int ear_freed_count(ear *e) {
    pthread_mutex_lock(&e->lock);
    int freed = e->freed;
    pthread_mutex_unlock(&e->lock);
    return freed;
}

static ear *ear_new(void) {
    ear *e = calloc(1, sizeof *e);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->more, NULL);
    return e;
}

static void ear_reach(ear *e, int count) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&e->lock);
    while (e->count < count)
        CHECK(pthread_cond_timedwait(&e->more, &e->lock, &end) == 0);
    pthread_mutex_unlock(&e->lock);
}

static bruit_out out(const char *member, const char *topic, const char *words) {
    bruit_out o;
    memset(&o, 0, sizeof o);
    o.size = sizeof o;
    o.flags = BRUIT_RELIABLE;
    o.member = member;
    o.topic = topic;
    o.data = words;
    o.len = strlen(words);
    return o;
}

void test_messages(void) {
    bruit_node *a = test_started("a", "thread"), *b = test_started("b", "thread");
    recorder *events = recorder_new();
    ear *all = ear_new(), *chat = ear_new();
    uint64_t subscription, receipts;
    OK(bruit_node_on_event(a, BRUIT_EVENT_RECEIPT, recorder_on_event, events, NULL, NULL));
    OK(bruit_node_on_message(b, "*", ear_hear, all, ear_freed, &subscription));
    OK(bruit_node_on_message(b, "chat", ear_hear, chat, NULL, NULL));
    test_join(a, b);

    OK(bruit_node_send(a, "b", "chat", "one", 3, BRUIT_RELIABLE));
    OK(bruit_node_send(a, "b", NULL, "two", 3, BRUIT_RELIABLE | BRUIT_WAIT));
    ear_reach(all, 2);
    STREQ(all->said[0], "a chat one");
    STREQ(all->said[1], "a  two");
    OK(bruit_node_send(a, "b", "chat", NULL, 0, 0));
    ear_reach(all, 3);
    ear_reach(chat, 2);
    STREQ(chat->said[0], "a chat one");

    EQ(bruit_node_send(a, "c", "chat", "", 0, 0), BRUIT_E_NOT_FOUND);
    EQ(bruit_node_send(a, "b", "chat", "", 0, 64), BRUIT_E_INVALID);
    EQ(bruit_node_send(a, "b", "a\nb", "", 0, 0), BRUIT_E_INVALID);

    /* Several at once, each with a result of its own. */
    bruit_kv role = {sizeof role, "role", "db", 2};
    OK(bruit_node_set_meta(b, &role, 1));
    EVENTUALLY(test_known(a, "role=db") == 1);
    bruit_out outs[5] = {out("b", "s", "1"), out("c", "s", "2"), out(NULL, "s", "3"), out(NULL, "s", "4"), out("b", "s", "5")};
    outs[0].flags = BRUIT_RECEIPT;
    outs[2].tag = "role=db";
    outs[4].size = 8;
    EQ(bruit_node_submit(a, outs, 5), 2);
    OK(outs[0].status);
    CHECK(outs[0].id > 0);
    EQ(outs[1].status, BRUIT_E_NOT_FOUND);
    EQ(outs[2].status, 1);
    EQ(outs[3].status, BRUIT_E_INVALID);
    EQ(outs[4].status, BRUIT_E_INVALID);
    ear_reach(all, 5);
    STREQ(all->said[3], "a s 1");
    STREQ(all->said[4], "a s 3");
    recorder_wait(events, 0, BRUIT_EVENT_RECEIPT, "b");
    OK(bruit_node_stat(a, "messages_sent", &receipts));
    EQ(receipts, 5);

    OK(bruit_node_unsubscribe(b, subscription));
    /* By whoever ends the last call: it may be on its way out yet. */
    EVENTUALLY(ear_freed_count(all) == 1);
    OK(bruit_node_free(a));
    OK(bruit_node_free(b));
    recorder_free(events);
    free(all);
    free(chat);
}

void test_broadcasts(void) {
    bruit_node *nodes[4];
    ear *ears[4];
    const char *names[] = {"a", "b", "c", "d"};
    for (int n = 0; n < 4; n++) {
        nodes[n] = test_started(names[n], "thread");
        ears[n] = ear_new();
        OK(bruit_node_on_message(nodes[n], "news", ear_hear, ears[n], NULL, NULL));
        if (n > 0)
            test_join(nodes[n], nodes[0]);
    }
    for (int n = 0; n < 4; n++)
        EVENTUALLY(test_known(nodes[n], NULL) == 4);
    OK(bruit_node_broadcast(nodes[0], "news", "one", 3, 0));
    OK(bruit_node_broadcast(nodes[1], "news", "two", 3, BRUIT_LOOPBACK | BRUIT_WAIT));
    EQ(bruit_node_broadcast(nodes[1], "news", "", 0, 1), BRUIT_E_INVALID);
    EQ(bruit_node_broadcast(nodes[1], "news", "", 0, 32), BRUIT_E_INVALID);
    for (int n = 0; n < 4; n++) {
        ear_reach(ears[n], n == 0 ? 1 : 2);
        for (int i = 0; i < ears[n]->count; i++)
            CHECK(strcmp(ears[n]->said[i], "a news one") == 0 || strcmp(ears[n]->said[i], "b news two") == 0);
    }
    for (int i = 0; i < 40; i++) {
        char step[8];
        int len = snprintf(step, sizeof step, "%d", i);
        OK(bruit_node_broadcast(nodes[2], "news", step, (size_t)len, BRUIT_ORDERED | BRUIT_LOOPBACK | BRUIT_WAIT));
    }
    for (int n = 0; n < 4; n++) {
        int before = n == 0 ? 1 : 2;
        ear_reach(ears[n], before + 40);
        for (int i = 0; i < 40; i++) {
            char step[24];
            snprintf(step, sizeof step, "c news %d", i);
            STREQ(ears[n]->said[before + i], step);
        }
    }
    for (int n = 0; n < 4; n++) {
        OK(bruit_node_free(nodes[n]));
        EQ(ears[n]->count, n == 0 ? 41 : 42);
        free(ears[n]);
    }
}

/* membership = partial: nobody needs to list all, who is listed as a neighbour says so, and all are told. */
void test_neighbours(void) {
    bruit_node *nodes[8];
    ear *ears[8];
    for (int n = 0; n < 8; n++) {
        char name[8];
        snprintf(name, sizeof name, "n%d", n);
        bruit_config *config = test_config(name, "thread");
        EQ(bruit_config_set(config, "membership", "some"), BRUIT_E_INVALID);
        OK(bruit_config_set(config, "membership", "partial"));
        OK(bruit_node_new(config, &nodes[n]));
        OK(bruit_config_free(config));
        OK(bruit_node_start(nodes[n]));
        ears[n] = ear_new();
        OK(bruit_node_on_message(nodes[n], "news", ear_hear, ears[n], NULL, NULL));
        if (n > 0)
            test_join(nodes[n], nodes[0]);
    }
    for (int n = 0; n < 8; n++)
        for (int linked = 0; linked < 3; test_pause()) {
            bruit_members *members = NULL;
            OK(bruit_node_members(nodes[n], &members));
            linked = 0;
            for (size_t i = 0; i < bruit_members_len(members); i++) {
                const bruit_member *member = bruit_members_at(members, i);
                linked += (member->flags & BRUIT_MEMBER_NEIGHBOUR) != 0;
                CHECK(member->flags < BRUIT_MEMBER_LOCAL + BRUIT_MEMBER_NEIGHBOUR);
            }
            CHECK(linked <= 5);
            bruit_members_free(members);
        }
    OK(bruit_node_broadcast(nodes[7], "news", "all", 3, BRUIT_LOOPBACK));
    for (int n = 0; n < 8; n++) {
        ear_reach(ears[n], 1);
        STREQ(ears[n]->said[0], "n7 news all");
    }
    for (int n = 0; n < 8; n++) {
        OK(bruit_node_free(nodes[n]));
        EQ(ears[n]->count, 1);
        free(ears[n]);
    }
}

static int ear_accepts(const bruit_message *message, void *user) {
    ear_note(user, message->sender, message->topic, message->data, message->len, 0);
    return message->len == 0 || *(const char *)message->data != '-';
}

void test_validation(void) {
    bruit_node *a = test_started("a", "thread"), *b = test_started("b", "thread");
    ear *judge = ear_new(), *e = ear_new();
    uint64_t subscription, rejected;
    OK(bruit_node_on_validate(b, "news", ear_accepts, judge, ear_freed, &subscription));
    OK(bruit_node_on_message(b, "*", ear_hear, e, NULL, NULL));
    test_join(a, b);
    OK(bruit_node_broadcast(a, "news", "-bad", 4, BRUIT_ORDERED | BRUIT_WAIT));
    OK(bruit_node_broadcast(a, "news", "good", 4, BRUIT_ORDERED | BRUIT_WAIT));
    ear_reach(e, 1);
    STREQ(e->said[0], "a news good");
    ear_reach(judge, 2);
    /* They are judged as they come. */
    int first_is_bad = strcmp(judge->said[0], "a news -bad") == 0;
    STREQ(judge->said[first_is_bad ? 0 : 1], "a news -bad");
    STREQ(judge->said[first_is_bad ? 1 : 0], "a news good");
    OK(bruit_node_stat(b, "validations_rejected", &rejected));
    EQ(rejected, 1);
    OK(bruit_node_unsubscribe(b, subscription));
    EVENTUALLY(ear_freed_count(judge) == 1);
    OK(bruit_node_broadcast(a, "news", "-as it is", 9, BRUIT_WAIT));
    ear_reach(e, 2);
    STREQ(e->said[1], "a news -as it is");
    EQ(judge->count, 2);
    OK(bruit_node_free(a));
    OK(bruit_node_free(b));
    free(judge);
    free(e);
}

void test_requests(void) {
    bruit_node *a = test_started("a", "thread"), *b = test_started("b", "thread");
    ear *e = ear_new(), *answers = ear_new();
    bruit_message *reply = NULL;
    uint64_t id;
    OK(bruit_node_on_message(b, "echo", ear_hear, e, NULL, NULL));
    OK(bruit_node_on_message(b, "fails", ear_hear, e, NULL, NULL));
    OK(bruit_node_on_message(b, "silent", ear_hear, e, NULL, NULL));
    OK(bruit_node_on_message(b, "later", ear_hear, e, NULL, NULL));
    test_join(a, b);

    OK(bruit_node_request(a, "b", "echo", "hello", 5, PATIENCE_MS, &reply));
    EQ(reply->len, 5);
    CHECK(memcmp(reply->data, "hello", 5) == 0);
    STREQ(reply->sender, "b");
    EQ(bruit_message_reply(reply, "", 0), BRUIT_E_STATE);
    bruit_message *again = bruit_message_ref(reply);
    CHECK(again == reply);
    bruit_message_unref(reply);
    CHECK(memcmp(again->data, "hello", 5) == 0);
    bruit_message_unref(again);
    OK(bruit_node_request(a, "b", "echo", NULL, 0, PATIENCE_MS, NULL));

    reply = NULL;
    EQ(bruit_node_request(a, "b", "fails", "", 0, PATIENCE_MS, &reply), BRUIT_E_REMOTE);
    CHECK(strstr(bruit_last_error(), "no such table"));
    EQ(bruit_node_request(a, "b", "silent", "", 0, PATIENCE_MS, &reply), BRUIT_E_NO_REPLY);
    EQ(bruit_node_request(a, "b", "nobody", "", 0, PATIENCE_MS, &reply), BRUIT_E_NO_HANDLER);
    EQ(bruit_node_request(a, "b", "echo", "", 0, 0, &reply), BRUIT_E_INVALID);
    CHECK(reply == NULL);

    /* Later, and from another thread; by callback. */
    bruit_out question = out("b", "later", "?");
    question.timeout_ms = -1;
    int before = e->count;
    OK(bruit_node_request_start(a, &question, ear_answer, answers, ear_freed, &id));
    ear_reach(e, before + 1);
    OK(bruit_message_reply(e->kept, "at last", 7));
    bruit_message_unref(e->kept);
    ear_reach(answers, 1);
    STREQ(answers->said[0], "b  at last");
    EQ(bruit_node_cancel(a, id), BRUIT_E_NOT_FOUND);
    OK(bruit_node_request_start(a, &question, ear_answer, answers, ear_freed, &id));
    ear_reach(e, before + 2);
    OK(bruit_node_cancel(a, id));
    ear_reach(answers, 2);
    EQ(answers->statuses[1], BRUIT_E_CANCELED);
    bruit_message_unref(e->kept); /* nobody waits for it any more */

    /* A message may outlive its node; user data is freed when the node ends. */
    OK(bruit_node_request_start(a, &question, ear_answer, answers, ear_freed, &id));
    ear_reach(e, before + 3);
    OK(bruit_node_free(b));
    EQ(bruit_message_reply(e->kept, "", 0), BRUIT_E_STATE);
    CHECK(memcmp(e->kept->data, "?", 1) == 0);
    bruit_message_unref(e->kept);
    OK(bruit_node_free(a));
    EQ(answers->freed, 3);
    free(e);
    free(answers);
}

void test_pulled_messages(void) {
    bruit_node *a = test_started("a", "thread"), *b = test_node("b", "manual");
    bruit_message *got[4];
    EQ(bruit_node_recv(b, got, 4, 0), 0);
    OK(bruit_node_start(b));
    test_join(b, a);
    char words[2] = "0";
    for (int n = 0; n < 6; n++, words[0]++)
        OK(bruit_node_send(a, "b", "t", words, 1, BRUIT_RELIABLE));
    for (int n = 0; n < 6;) {
        int count = bruit_node_recv(b, got, 4, PATIENCE_MS);
        CHECK(count > 0);
        for (int i = 0; i < count; i++, n++) {
            EQ(*(const char *)got[i]->data, '0' + n);
            EQ(got[i]->flags, BRUIT_MESSAGE_RELIABLE);
            bruit_message_unref(got[i]);
        }
    }
    EQ(bruit_node_recv(b, got, 4, 1), 0);
    OK(bruit_node_stop(b, PATIENCE_MS));
    EQ(bruit_node_recv(b, got, 4, 0), BRUIT_E_STATE);
    OK(bruit_node_free(b));
    OK(bruit_node_free(a));
}
