import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AnswerEnd } from './answer-end.js';

/** Sections, a delimiter, data that looks like packets, and the flush. */
const answer = '000eack one 2\n00010008000000090000x0000';

test('the end of an answer is found however it is cut, and what is behind it', () => {
  for (let cut = 0; cut <= answer.length; cut++) {
    const end = new AnswerEnd();
    end.see(Buffer.from(answer.slice(0, cut)));
    assert.equal(end.reached, cut === answer.length);
    end.see(Buffer.from(answer.slice(cut)));
    assert.equal(end.reached, true);
    assert.equal(end.rest.length, 0);
  }
  const end = new AnswerEnd();
  end.see(Buffer.from(`${answer}more`));
  assert.equal(end.rest.toString(), 'more');
});

test('what is not in packets has no end', () => {
  for (const text of ['zzzz0000', '00030000']) {
    const end = new AnswerEnd();
    end.see(Buffer.from(text));
    assert.deepEqual([end.reached, end.lost], [false, true]);
  }
});
