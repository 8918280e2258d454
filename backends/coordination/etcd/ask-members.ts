import type { CoordinatorMember } from '../../contract/coordinator-members.js';
import { reasonOf } from './etcd-errors.js';
import type { EtcdSettings } from './etcd-settings.js';
import { MemberClient } from './member-client.js';
import { whatListens } from './what-listens.js';

/** Waited for by a person, who is to hear of the others, too. */
const timeoutMs = 2_000;

/**
 * What each member says of itself, over a connection of its own. Nobody signs in for it: that would take the majority
 * that may be missing, and etcd tells its state to everybody whom it takes a connection from.
 */
export function askMembers({
  auth: _nobody,
  ...settings
}: EtcdSettings): Promise<readonly CoordinatorMember[]> {
  return Promise.all(settings.endpoints.map((endpoint) => askMember(endpoint, settings)));
}

async function askMember(endpoint: string, settings: EtcdSettings): Promise<CoordinatorMember> {
  const silent = { address: endpoint, answers: false, leads: false, hasLeader: false };
  const member = new MemberClient(endpoint, settings);
  let isConnected = false;
  try {
    isConnected = await member.ready(timeoutMs);
    if (!isConnected) {
      return { ...silent, problem: await whatListens({ endpoint, tls: settings.tls }) };
    }
    const { memberId, leaderId, errors } = await member.askState(timeoutMs);
    return {
      address: endpoint,
      answers: true,
      leads: leaderId === memberId,
      hasLeader: leaderId !== '0',
      problem: errors.length === 0 ? undefined : errors.join('; '),
    };
  } catch (error) {
    const problem = `${endpoint} takes connections, and does not say how it is (${reasonOf(error)})`;
    return { ...silent, problem };
  } finally {
    member.close();
  }
}
