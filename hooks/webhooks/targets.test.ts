import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createTargets, parseNetworks } from './targets.js';

const publicAddresses = [
  '1.1.1.1',
  '8.8.8.8',
  '11.0.0.0',
  '100.63.255.255',
  '100.128.0.0',
  '126.255.255.255',
  '128.0.0.0',
  '169.253.255.255',
  '172.15.255.255',
  '172.32.0.0',
  '192.167.255.255',
  '223.255.255.255',
  '2606:4700:4700::1111',
  '2a00:1450:4001:80b::200e',
  '::ffff:8.8.8.8', // IPv4-mapped
  '64:ff9b::808:808', // NAT64 of 8.8.8.8
];

const otherAddresses = [
  '0.0.0.0',
  '0.1.2.3',
  '10.0.0.1',
  '10.255.255.255',
  '100.64.0.0', // carrier-grade NAT
  '100.100.100.200', // metadata of a cloud, inside it
  '100.127.255.255',
  '127.0.0.1',
  '127.255.255.255',
  '169.254.169.254', // metadata of most clouds
  '172.16.0.0',
  '172.31.255.255',
  '192.0.0.192',
  '192.0.2.1',
  '192.168.0.1',
  '198.18.0.1',
  '198.51.100.1',
  '203.0.113.1',
  '224.0.0.1',
  '239.255.255.255',
  '240.0.0.1',
  '255.255.255.255',
  '::',
  '::1',
  '::127.0.0.1', // IPv4-compatible, long out of use
  '::ffff:127.0.0.1',
  '::ffff:7f00:1',
  '::ffff:169.254.169.254',
  '0:0:0:0:0:ffff:0a00:0001',
  '64:ff9b::7f00:1',
  '64:ff9b::169.254.169.254',
  '64:ff9b:1::1',
  '100::1',
  'fc00::1',
  'fd00:ec2::254', // metadata of a cloud
  'fe80::1',
  'fe80::1%eth0',
  'fec0::1',
  'ff02::1',
  '2001::1', // Teredo
  '2001:db8::1',
  '2002:7f00:1::', // 6to4 of 127.0.0.1
  '3fff::1',
  'localhost',
  '',
  '1.2.3',
  '0x7f.0.0.1',
];

test('public addresses are permitted, all others are not', () => {
  const targets = createTargets('');
  for (const address of publicAddresses) assert.ok(targets.permits(address), address);
  for (const address of otherAddresses) assert.ok(!targets.permits(address), address);
});

describe('networks that are let in', () => {
  const cases: readonly (readonly [allowed: string, yes: string, no: string])[] = [
    ['127.0.0.1', '127.0.0.1', '127.0.0.2'],
    ['127.0.0.0/8', '127.9.9.9', '10.0.0.1'],
    ['10.1.0.0/20', '10.1.15.255', '10.1.16.0'],
    ['::1', '::1', '::2'],
    ['fd00::/9', 'fd7f::1', 'fd80::1'],
    ['127.0.0.1', '::ffff:127.0.0.1', '::1'],
    [' 10.0.0.0/8 , fe80::/10 ', 'fe80::1%eth0', '192.168.0.1'],
    ['0.0.0.0/0', '127.0.0.1', '::1'],
  ];
  for (const [allowed, yes, no] of cases) {
    test(allowed, () => {
      const targets = createTargets(allowed);
      assert.ok(targets.permits(yes), yes);
      assert.ok(!targets.permits(no), no);
      assert.ok(targets.permits('8.8.8.8'), 'a public one');
    });
  }

  test('what is no network is not taken', () => {
    for (const text of ['10.0.0.0/33', '::/129', 'localhost', '10.0.0/8', '10.0.0.0/8/8', '1/x']) {
      assert.equal(parseNetworks(text), undefined, text);
    }
    assert.deepEqual(parseNetworks(''), []);
  });
});
