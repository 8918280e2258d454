import assert from 'node:assert/strict';
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { test } from 'node:test';
import { RequestBody } from './request-body.js';

/** A request of which `here` has come. */
function requestOf(here: string, lengthBytes: number): IncomingMessage {
  const request = new IncomingMessage(new Socket());
  request.headers['content-length'] = String(lengthBytes);
  request.push(Buffer.from(here));
  return request;
}

test('a body that came whole is spent as soon as it is read', () => {
  const body = new RequestBody(requestOf('whole', 5), 100);
  assert.equal(body.spent, false);
  assert.equal(String(body.read()), 'whole');
  assert.equal(body.spent, true);
  assert.equal(body.receivedBytes, 5);
});

test('one that is still being sent is not, and neither is one that is too large', () => {
  const part = new RequestBody(requestOf('part', 5), 100);
  part.read();
  assert.equal(part.spent, false);
  const large = new RequestBody(requestOf('large', 5), 4);
  large.read();
  assert.equal(large.spent, false);
});
