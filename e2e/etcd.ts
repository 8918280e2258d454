/** Real etcd for end-to-end tests and benchmarks: members that can be killed, paused, saved and restored. */
export {
  EtcdCluster,
  EtcdMember,
  type EtcdClusterOptions,
  type EtcdTls,
} from '../backends/coordination/etcd/testing/etcd-cluster.js';
