import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodeLease,
  decodeLeaseTimeToLive,
  decodeToken,
  encodeAuthenticate,
  encodeLeaseGrant,
  encodeLeaseId,
} from './lease-and-auth-messages.js';
import { methodOf } from './testing/etcd-messages.js';

const lease = (name: string) => methodOf('etcdserverpb.Lease', name);
const signIn = methodOf('etcdserverpb.Auth', 'Authenticate');
const header = {
  cluster_id: '17237436991929493444',
  member_id: '9372538179322589801',
  revision: '9007199254740991',
  raft_term: '7',
};
const id = '9223372036854775807';

test('requests are what etcd reads', () => {
  const grant = lease('LeaseGrant').requestDeserialize(encodeLeaseGrant(id, 10));
  assert.deepEqual({ ...Object(grant) }, { TTL: '10', ID: id });
  for (const name of ['LeaseRevoke', 'LeaseKeepAlive', 'LeaseTimeToLive']) {
    const asked: unknown = lease(name).requestDeserialize(encodeLeaseId(id));
    assert.equal(Object(asked).ID, id, name);
  }
  const asked = signIn.requestDeserialize(encodeAuthenticate('ann', 'gehe\u00efm'));
  assert.deepEqual({ ...Object(asked) }, { name: 'ann', password: 'gehe\u00efm' });
});

test('answers are what etcd writes', () => {
  const granted = { header, ID: id, TTL: '10' };
  for (const name of ['LeaseGrant', 'LeaseKeepAlive']) {
    assert.deepEqual(decodeLease(lease(name).responseSerialize(granted)), granted, name);
  }
  const refused = lease('LeaseGrant').responseSerialize({ ...granted, error: 'no' });
  assert.deepEqual(decodeLease(refused), granted);
  const left = { header, ID: id, TTL: '7', grantedTTL: '10' };
  const answer = { ...left, keys: [Buffer.from('a'), Buffer.from('b')] };
  const write = lease('LeaseTimeToLive');
  assert.deepEqual(decodeLeaseTimeToLive(write.responseSerialize(answer)), left);
  const ended = { header, ID: id, TTL: '-1', grantedTTL: '0' };
  assert.deepEqual(decodeLeaseTimeToLive(write.responseSerialize(ended)), ended);
  assert.equal(decodeToken(signIn.responseSerialize({ header, token: 'abc.12' })), 'abc.12');
});
