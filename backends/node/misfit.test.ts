import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { misfitWords } from './misfit.js';

test('of a certificate that has ended it is said that it has, and not that its authority is wrong', () => {
  const cause = Object.assign(new Error('certificate has expired'), { code: 'CERT_HAS_EXPIRED' });
  const error = new QuorateError('unavailable', 'no connection', { cause });
  for (const answered of [false, true]) {
    const said = misfitWords(error, { hasTls: true, answered });
    assert.match(said ?? '', /^the certificate of a storage node has ended: put a new one .*cert/);
  }
});
