/** How the sync hears of what users write: by the proxy's rings and by signed webhooks, as far as they get through. */
import { createHmac } from 'node:crypto';
import type { Stage, StoreName } from './stage.ts';
import type { Delivery, Told } from './words.ts';

export const webhookSecret = 'the-secret-of-the-histories';

export interface Written {
  readonly store: StoreName;
  readonly id: string;
  readonly partition: string;
  /** Where it was before. */
  readonly oldPartition: string;
}

interface Due {
  readonly place: number;
  readonly send: () => Promise<void>;
}

const sentAtOnce = 8;

export class Telling {
  readonly #stage: Stage;
  readonly #due = new Map<number, Due[]>();

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  tell(written: Written, told: Told, round: number): void {
    const { store, id, partition, oldPartition } = written;
    const { rig, random } = this.#stage;
    if (told.receipt) {
      const named = random.next() < 0.2 ? oldPartition : partition;
      rig.sync.doorbell.ring({ partition: named, kind: 'appointment', id });
      this.#stage.count('receipt');
    }
    for (const delivery of told.deliveries) {
      const event = this.#eventOf(delivery, written);
      const due = this.#due.get(round + delivery.late) ?? [];
      this.#due.set(round + delivery.late, due);
      // A double has the same id or, from a careless sender, another one.
      for (let time = 0; time < delivery.times; time += 1) {
        const body = JSON.stringify(time === 2 ? { ...event, id: `${event.id} again` } : event);
        due.push({ place: delivery.place + time, send: () => this.#send(store, body) });
      }
    }
  }

  /** What is due in this round, or in any that is left. */
  async deliver(round: number | 'all'): Promise<void> {
    const rounds = round === 'all' ? [...this.#due.keys()] : [round];
    const due = rounds.flatMap((one) => this.#due.get(one) ?? []);
    for (const one of rounds) this.#due.delete(one);
    const inOrder = due.toSorted((left, right) => left.place - right.place);
    for (let at = 0; at < inOrder.length; at += sentAtOnce) {
      await Promise.all(inOrder.slice(at, at + sentAtOnce).map(({ send }) => send()));
    }
  }

  #eventOf({ names }: Delivery, { id, partition, oldPartition }: Written) {
    const owner = names === 'old' ? oldPartition : partition;
    return {
      ...{ id: `delivery ${this.#stage.number()}`, names: names === 'none' ? 'none' : 'new' },
      data: { id, ...(names === 'none' ? {} : { owner }) },
    };
  }

  /** What nobody takes is lost. */
  async #send(store: StoreName, body: string): Promise<void> {
    const { workers, random } = this.#stage;
    const { url = '' } = workers[random.below(workers.length)] ?? {};
    const seconds = Math.floor(Date.now() / 1_000);
    const mac = createHmac('sha256', webhookSecret).update(`${seconds}.${body}`).digest('hex');
    const headers = { 'stripe-signature': `t=${seconds},v1=${mac}` };
    try {
      const { status } = await fetch(`${url}/webhooks/${store}`, { method: 'POST', headers, body });
      this.#stage.count(`delivery answered ${status}`);
    } catch {
      this.#stage.count('delivery lost');
    }
  }
}
