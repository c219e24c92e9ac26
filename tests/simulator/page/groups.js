// Groups: their metadata and members, creation, invite code. Facts: research/webpage.md 2 (g); wa-js waits after a creation until the
// metadata is not stale.
(function (sim) {
  const { BaseModel, BaseCollection, defineModel, properties, createWid, account, wire } = sim;

  class Participant extends BaseModel {}
  defineModel(Participant, properties('id isAdmin isSuperAdmin'), 'participant');

  class Participants extends BaseCollection {
    mine() {
      return this.findFirst((p) => account.isMe(p.id));
    }
    iAmMember() {
      return !!this.mine();
    }
    iAmAdmin() {
      return !!this.mine()?.isAdmin;
    }
    iAmSuperAdmin() {
      return !!this.mine()?.isSuperAdmin;
    }
    iAmRestrictedMember() {
      return false;
    }
    canAdd() {
      return this.iAmAdmin();
    }
    canRemove() {
      return this.iAmAdmin();
    }
    canPromote() {
      return this.iAmAdmin();
    }
    canDemote() {
      return this.iAmAdmin();
    }
    serialize() {
      return this.models.map((p) => p.serialize());
    }
  }
  Participants.model = Participant;

  class GroupMetadata extends BaseModel {
    initialize() {
      this.participants = new Participants();
    }
  }
  defineModel(GroupMetadata, properties('id subject participants desc owner creation stale announce restrict groupType'), 'groupMetadata');

  class GroupMetadataCollection extends BaseCollection {
    onParentGroupChange() {}
    _handleParentGroupChange() {}
  }
  GroupMetadataCollection.model = GroupMetadata;
  const groups = new GroupMetadataCollection();

  /** A group as the server tells it: `{id, subject, participants: [{id, admin}]}`. */
  function apply(group) {
    const id = createWid(group.id);
    const metadata = groups.gadd(id);
    const members = group.participants.map((p) => ({ id: createWid(p.id), isAdmin: !!p.admin, isSuperAdmin: p.admin === 'superadmin' }));
    const gone = metadata.participants.filter((p) => !members.some((m) => m.id.equals(p.id)));
    metadata.participants.remove(gone);
    metadata.participants.add(members, { merge: true });
    metadata.set({ subject: group.subject, stale: false });
    const chat = sim.chats.of(id);
    chat.set({ name: group.subject, groupMetadata: metadata });
    sim.chats.save(chat);
    return metadata;
  }
  wire.handlers.group = (m) => void apply(m.group);

  class GroupAlreadyExistsError extends Error {}

  async function createGroup(options, participants) {
    const title = options.title || options;
    const wids = participants.map((p) => (p.phoneNumber || p).toString());
    const { group } = await wire.ask({ op: 'group.create', title, participants: wids });
    const metadata = apply(group);
    return { wid: metadata.id, ts: sim.now(), participants: metadata.participants.map((p) => ({ wid: p.id, error: null })) };
  }
  const fetchMexGroupInviteCode = async (wid) => (await wire.ask({ op: 'group.invite', id: wid.toString() })).code;

  sim.groups = { groups, apply };
  sim.define('WAWebGroupMetadataCollection', () => ({ default: groups }));
  sim.define('WAWebGroupMetadataModel', () => ({ default: GroupMetadata }));
  sim.define('WAWebGroupCreateJob', () => ({ GroupAlreadyExistsError, createGroup }));
  sim.define('WAWebMexFetchGroupInviteCodeJob', () => ({ fetchMexGroupInviteCode }));
})(window.__SIM);
