/*
 * The layouts of the messages the endpoint speaks, written down a second time in another notation,
 * so that a slip in the field rows (gateway/kafka/messages.c) shows. Per API: requests, responses;
 * a line is name, type, versions, and the first version in which it may be null.
 */
#pragma once

struct kafka_layout {
    int api;
    const char *request, *response;
};

static const struct kafka_layout kafka_layouts[] = {
    {18,
     " software_name str 3+\n"
     " software_version str 3+\n",
     " error i16 0+\n"
     " keys [] 0+\n"
     "  key i16 0+\n"
     "  min i16 0+\n"
     "  max i16 0+\n"
     " throttle i32 1+\n"},
    {3,
     " topics [] 0+ null1\n"
     "  topic_id uuid 10+\n"
     "  name str 0+ null10\n"
     " allow_auto_create bool 4+\n"
     " incl_cluster_ops bool 8-10\n"
     " incl_topic_ops bool 8+\n",
     " throttle i32 3+\n"
     " brokers [] 0+\n"
     "  id i32 0+\n"
     "  host str 0+\n"
     "  port i32 0+\n"
     "  rack str 1+ null1\n"
     " cluster_id str 2+ null2\n"
     " controller i32 1+\n"
     " topics [] 0+\n"
     "  error i16 0+\n"
     "  name str 0+ null12\n"
     "  topic_id uuid 10+\n"
     "  internal bool 1+\n"
     "  partitions [] 0+\n"
     "   error i16 0+\n"
     "   index i32 0+\n"
     "   leader i32 0+\n"
     "   leader_epoch i32 7+\n"
     "   replicas i32[] 0+\n"
     "   isr i32[] 0+\n"
     "   offline i32[] 5+\n"
     "  topic_ops i32 8+\n"
     " cluster_ops i32 8-10\n"},
    {2,
     " replica_id i32 0+\n"
     " isolation i8 2+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   current_epoch i32 4+\n"
     "   timestamp i64 0+\n",
     " throttle i32 2+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   error i16 0+\n"
     "   timestamp i64 1+\n"
     "   offset i64 1+\n"
     "   leader_epoch i32 4+\n"},
    {1,
     " replica_id i32 0-14\n"
     " max_wait i32 0+\n"
     " min_bytes i32 0+\n"
     " max_bytes i32 3+\n"
     " isolation i8 4+\n"
     " session_id i32 7+\n"
     " session_epoch i32 7+\n"
     " topics [] 0+\n"
     "  name str 0-12\n"
     "  topic_id uuid 13+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   current_epoch i32 9+\n"
     "   offset i64 0+\n"
     "   last_fetched_epoch i32 12+\n"
     "   log_start i64 5+\n"
     "   max_bytes i32 0+\n"
     " forgotten [] 7+\n"
     "  name str 7-12\n"
     "  topic_id uuid 13+\n"
     "  partitions i32[] 7+\n"
     " rack str 11+\n",
     " throttle i32 1+\n"
     " error i16 7+\n"
     " session_id i32 7+\n"
     " topics [] 0+\n"
     "  name str 0-12\n"
     "  topic_id uuid 13+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   error i16 0+\n"
     "   hw i64 0+\n"
     "   lso i64 4+\n"
     "   log_start i64 5+\n"
     "   aborted [] 4+ null4\n" /* always null: no rows */
     "   preferred_replica i32 11+\n"
     "   records recs 0+ null0\n"},
    {10,
     " key str 0-3\n"
     " key_type i8 1+\n"
     " keys str[] 4+\n",
     " throttle i32 1+\n"
     " error i16 0-3\n"
     " message str 1-3 null1\n"
     " node i32 0-3\n"
     " host str 0-3\n"
     " port i32 0-3\n"
     " coordinators [] 4+\n"
     "  key str 4+\n"
     "  node i32 4+\n"
     "  host str 4+\n"
     "  port i32 4+\n"
     "  error i16 4+\n"
     "  message str 4+ null4\n"},
    {23,
     " replica_id i32 3+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   current_epoch i32 2+\n"
     "   epoch i32 0+\n",
     " throttle i32 2+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   error i16 0+\n"
     "   index i32 0+\n"
     "   epoch i32 1+\n"
     "   end_offset i64 0+\n"},
    {17, " mechanism str 0+\n",
     " error i16 0+\n"
     " mechanisms str[] 0+\n"},
    {36, " auth bytes 0+\n",
     " error i16 0+\n"
     " message str 0+ null0\n"
     " auth bytes 0+\n"
     " lifetime i64 1+\n"},
    {0,
     " txn_id str 3+ null3\n"
     " acks i16 0+\n"
     " timeout i32 0+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   records bytes 0+ null0\n", /* skipped, so plain bytes */
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   error i16 0+\n"
     "   base_offset i64 0+\n"
     "   append_time i64 2+\n"
     "   log_start i64 5+\n"
     "   record_errors [] 8+\n" /* always empty: no rows */
     "   message str 8+ null8\n"
     " throttle i32 1+\n"},
    {11,
     " group str 0+\n"
     " session_timeout i32 0+\n"
     " rebalance_timeout i32 1+\n"
     " member str 0+\n"
     " instance str 5+ null5\n"
     " protocol_type str 0+\n"
     " protocols [] 0+\n"
     "  name str 0+\n"
     "  metadata bytes 0+\n"
     " reason str 8+ null8\n",
     " throttle i32 2+\n"
     " error i16 0+\n"
     " generation i32 0+\n"
     " protocol_type str 7+ null7\n"
     " protocol str 0+ null7\n"
     " leader str 0+\n"
     " skip_assignment bool 9+\n"
     " member str 0+\n"
     " members [] 0+\n"
     "  member str 0+\n"
     "  instance str 5+ null5\n"
     "  metadata bytes 0+\n"},
    {14,
     " group str 0+\n"
     " generation i32 0+\n"
     " member str 0+\n"
     " instance str 3+ null3\n"
     " protocol_type str 5+ null5\n"
     " protocol str 5+ null5\n"
     " assignments [] 0+\n"
     "  member str 0+\n"
     "  assignment bytes 0+\n",
     " throttle i32 1+\n"
     " error i16 0+\n"
     " protocol_type str 5+ null5\n"
     " protocol str 5+ null5\n"
     " assignment bytes 0+\n"},
    {12,
     " group str 0+\n"
     " generation i32 0+\n"
     " member str 0+\n"
     " instance str 3+ null3\n",
     " throttle i32 1+\n"
     " error i16 0+\n"},
    {13,
     " group str 0+\n"
     " member str 0-2\n"
     " members [] 3+\n"
     "  member str 3+\n"
     "  instance str 3+ null3\n"
     "  reason str 5+ null5\n",
     " throttle i32 1+\n"
     " error i16 0+\n"
     " members [] 3+\n"
     "  member str 3+\n"
     "  instance str 3+ null3\n"
     "  error i16 3+\n"},
    {8,
     " group str 0+\n"
     " generation i32 1+\n"
     " member str 1+\n"
     " instance str 7+ null7\n"
     " retention i64 2-4\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   offset i64 0+\n"
     "   epoch i32 6+\n"
     "   metadata str 0+ null0\n",
     " throttle i32 3+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   error i16 0+\n"},
    {9,
     " group str 0-7\n"
     " topics [] 0-7 null2\n"
     "  name str 0+\n"
     "  partitions i32[] 0+\n"
     " groups [] 8+\n"
     "  group str 8+\n"
     "  topics [] 8+ null8\n"
     "   name str 0+\n"
     "   partitions i32[] 0+\n"
     " require_stable bool 7+\n",
     " throttle i32 3+\n"
     " topics [] 0-7\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   offset i64 0+\n"
     "   epoch i32 5+\n"
     "   metadata str 0+ null0\n"
     "   error i16 0+\n"
     " error i16 2-7\n"
     " groups [] 8+\n"
     "  group str 8+\n"
     "  topics [] 8+\n"
     "   name str 0+\n"
     "   partitions [] 0+\n"
     "    index i32 0+\n"
     "    offset i64 0+\n"
     "    epoch i32 5+\n"
     "    metadata str 0+ null0\n"
     "    error i16 0+\n"
     "  error i16 8+\n"},
    {16, " states str[] 4+\n",
     " throttle i32 1+\n"
     " error i16 0+\n"
     " groups [] 0+\n"
     "  group str 0+\n"
     "  protocol_type str 0+\n"
     "  state str 4+\n"},
    {15,
     " groups str[] 0+\n"
     " incl_ops bool 3+\n",
     " throttle i32 1+\n"
     " groups [] 0+\n"
     "  error i16 0+\n"
     "  group str 0+\n"
     "  state str 0+\n"
     "  protocol_type str 0+\n"
     "  protocol str 0+\n"
     "  members [] 0+\n"
     "   member str 0+\n"
     "   instance str 4+ null4\n"
     "   client_id str 0+\n"
     "   client_host str 0+\n"
     "   metadata bytes 0+\n"
     "   assignment bytes 0+\n"
     "  ops i32 3+\n"},
    {42, " groups str[] 0+\n",
     " throttle i32 0+\n"
     " results [] 0+\n"
     "  group str 0+\n"
     "  error i16 0+\n"},
    {47,
     " group str 0+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n",
     " error i16 0+\n"
     " throttle i32 0+\n"
     " topics [] 0+\n"
     "  name str 0+\n"
     "  partitions [] 0+\n"
     "   index i32 0+\n"
     "   error i16 0+\n"},
    {32,
     " resources [] 0+\n"
     "  type i8 0+\n"
     "  name str 0+\n"
     "  keys str[] 0+ null0\n"
     " synonyms bool 1+\n"
     " docs bool 3+\n",
     " throttle i32 0+\n"
     " results [] 0+\n"
     "  error i16 0+\n"
     "  message str 0+ null0\n"
     "  type i8 0+\n"
     "  name str 0+\n"
     "  configs [] 0+\n"
     "   name str 0+\n"
     "   value str 0+ null0\n"
     "   read_only bool 0+\n"
     "   source i8 1+\n"
     "   sensitive bool 0+\n"
     "   synonyms [] 1+\n"
     "    name str 1+\n"
     "    value str 1+ null1\n"
     "    source i8 1+\n"
     "   config_type i8 3+\n"
     "   doc str 3+ null3\n"},
    {60,
     " incl_ops bool 0+\n"
     " endpoint_type i8 1+\n",
     " throttle i32 0+\n"
     " error i16 0+\n"
     " message str 0+ null0\n"
     " endpoint_type i8 1+\n"
     " cluster_id str 0+\n"
     " controller i32 0+\n"
     " brokers [] 0+\n"
     "  id i32 0+\n"
     "  host str 0+\n"
     "  port i32 0+\n"
     "  rack str 0+ null0\n"
     " cluster_ops i32 0+\n"},
};
