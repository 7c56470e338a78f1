/** The sizes of cluster.toml in the form that the rules of kv/ take. */
import type { BucketLimits } from "../kv/key_buckets.ts";
import type { TabletLimits } from "../kv/tablet_policy.ts";
import type { ClusterConfig } from "../proto/cluster_config.ts";

/** Buckets per full tablet: enough to find its middle well. */
const BUCKETS = 32;
/** Cutting a bucket reads it in one turn of the event loop, so there is an upper bound. */
const BUCKET_BYTES_MAX = 256 * 1024;

export function tabletLimits({ store }: ClusterConfig): TabletLimits {
  return { bytesMax: store.tablet_max_bytes, largeBytesMax: store.tablet_max_disk_bytes };
}

export function bucketLimits(limits: TabletLimits): BucketLimits {
  return {
    bytesMax: Math.min(BUCKET_BYTES_MAX, Math.ceil(limits.bytesMax / BUCKETS)),
    largeBytesMax: Math.ceil(limits.largeBytesMax / BUCKETS),
  };
}
